#!/usr/bin/perl
# Stand-in for what NixOS's activation does in /etc: a link for each file of the system's tree, and none for those that
# are gone. Only the systems that time a switch run it; the others have the few links that a host needs to boot.
use strict;
use warnings;

my ($static, $etc) = ("/etc/static", "/etc");

sub names {
  my ($folder) = @_;
  opendir my $open, $folder or return ();
  return sort grep { $_ ne "." && $_ ne ".." } readdir $open;
}

# A link of ours that leads nowhere belongs to a file that the new system does not have.
sub clean {
  my ($folder) = @_;
  for my $at (map { "$folder/$_" } names($folder)) {
    if (-l $at) {
      unlink $at if readlink($at) =~ m{^\Q$static\E/} && !-e $at;
    } elsif (-d $at) {
      clean($at);
    }
  }
}

my @made;

sub fill {
  my ($inner) = @_;
  for my $path (map { "$inner/$_" } names("$static$inner")) {
    my ($to, $at) = ("$static$path", "$etc$path");
    push @made, $path;
    # What is one link in /etc is not walked through: /etc/systemd/system is.
    next if -l $at && readlink($at) eq $to;
    if (-d $to && !-l $to) {
      mkdir $at, 0755 unless -d $at;
      fill($path);
      next;
    }
    # Never without a file in between.
    unlink "$at.new";
    symlink $to, "$at.new" or die "cannot link $at.new: $!";
    rename "$at.new", $at or die "cannot rename $at.new: $!";
  }
}

clean($etc);
fill("");
open my $list, ">", "$etc/.made.new" or die $!;
print $list "$_\n" for @made;
close $list or die $!;
rename "$etc/.made.new", "$etc/.made" or die $!;
