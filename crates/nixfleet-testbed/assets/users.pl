#!/usr/bin/perl
# Stand-in for what NixOS's activation does to users and groups: those that the system declares are made and kept, with a
# number that stays theirs, and whoever was made by hand is left alone. Reads one line for each: kind, name, members.
# Only the systems that time a switch run it.
use strict;
use warnings;

my ($declared, $maps) = ($ARGV[0], "/var/lib/nixos");

sub lines {
  my ($path) = @_;
  open my $file, "<", $path or return ();
  my @lines = <$file>;
  chomp @lines;
  return @lines;
}

sub write_atomic {
  my ($path, $mode, @lines) = @_;
  open my $file, ">", "$path.new" or die "cannot write $path.new: $!";
  chmod $mode, "$path.new";
  print $file "$_\n" for @lines;
  close $file or die "cannot write $path.new: $!";
  rename "$path.new", $path or die "cannot rename $path.new: $!";
}

sub by_name { my %of = map { (split(/:/, $_, 2))[0] => $_ } @_; return \%of }

mkdir $maps, 0755;
my (@users, @groups);
for (lines($declared)) {
  my ($kind, $name, $members) = split / /;
  push @{ $kind eq "user" ? \@users : \@groups }, [$name, $members // ""];
}
my ($passwd, $group, $shadow) = map { by_name(lines("/etc/$_")) } qw(passwd group shadow);

# Numbers that were given once are not given to anybody else.
sub numbered {
  my ($map, $field, $known, @wanted) = @_;
  my %number = map { split /:/ } lines("$maps/$map");
  my %taken = map { (split /:/)[$field] => 1 } values %$known;
  $taken{$_} = 1 for values %number;
  my $next = 999;
  for my $name (@wanted) {
    $number{$name} //= (split /:/, $known->{$name})[$field] if $known->{$name};
    next if defined $number{$name};
    $next-- while $taken{$next} || getpwuid($next) || getgrgid($next);
    $taken{$next} = 1;
    $number{$name} = $next;
  }
  write_atomic("$maps/$map", 0644, map { "$_:$number{$_}" } sort keys %number);
  return \%number;
}

my $gids = numbered("gid-map", 2, $group, map { $_->[0] } @groups);
my $uids = numbered("uid-map", 2, $passwd, map { $_->[0] } @users);
for (@groups) {
  my ($name, $members) = @$_;
  my %member = map { $_ => 1 } split(/,/, $members), split(/,/, (split /:/, $group->{$name} // "")[3] // "");
  $group->{$name} = join ":", $name, "x", $gids->{$name}, join(",", sort keys %member);
}
for (@users) {
  my ($name) = @$_;
  my $gid = $gids->{$name} // 65534;
  $passwd->{$name} = join ":", $name, "x", $uids->{$name}, $gid, "", "/var/empty", "/usr/sbin/nologin";
  $shadow->{$name} //= "$name:!:1::::::";
}
my %uid = map { $_ => (split /:/, $passwd->{$_})[2] } keys %$passwd;
my %gid = map { $_ => (split /:/, $group->{$_})[2] } keys %$group;
write_atomic("/etc/group", 0644, map { $group->{$_} } sort { $gid{$a} <=> $gid{$b} || $a cmp $b } keys %$group);
write_atomic("/etc/passwd", 0644, map { $passwd->{$_} } sort { $uid{$a} <=> $uid{$b} || $a cmp $b } keys %$passwd);
write_atomic("/etc/shadow", 0640, map { $shadow->{$_} } sort keys %$shadow);
