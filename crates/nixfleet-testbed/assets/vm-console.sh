#!/bin/bash
# Runs the testbed's programs inside a virtual machine, one after another, for as long as the machine is up.
#
# Started by stage 2 before systemd, in nobody's unit, so that no switch and no failure of a service reaches it.
# It talks over a port of its own (raw bytes, no terminal), not over the network, which a test may have broken.
#   request:  "ID SECONDS LENGTH\n", then LENGTH bytes of argument vector, each argument ended by a NUL
#   answer:   "ID CODE STDOUT-LENGTH STDERR-LENGTH\n", then both streams
# What a program prints is kept in memory, so more than the folder holds is an error of the program's.
bytes_max=$1
here=/run/testbed-console
mkdir -p $here
mount -t tmpfs -o size=$((3 * bytes_max)),mode=0700 tmpfs $here
for port in /dev/vport*; do exec 3<> "$port"; done
length() { local n; n=$(stat -c %s "$1"); echo $((n < bytes_max ? n : bytes_max)); }
while read -r id seconds length <&3; do
  head -c "$length" <&3 > $here/argv
  mapfile -d '' -t argv < $here/argv
  timeout -s KILL "$seconds" "${argv[@]}" < /dev/null > $here/out 2> $here/err 3>&-
  code=$?
  out=$(length $here/out) err=$(length $here/err)
  { echo "$id $code $out $err"; head -c "$out" $here/out; head -c "$err" $here/err; } >&3
done
