#!/bin/sh
# Moves the game from one version to the next, and stops the old one when its last session has ended.
# Where a step fails, nothing is stopped, and it can be run again. After a reboot, what comes back is
# what was moved to.
# usage: deploy.sh OLD NEW, such as: deploy.sh v1 v2
set -e
test "$1" != "$2"
systemctl start "game@$2.service"
reuseportctl migrate game --to-unit "game@$2.service"
systemctl enable "game@$2.service"; systemctl disable "game@$1.service"
reuseportctl migrate game --to-unit "game@$2.service" --wait-sessions 6h
systemctl stop "game@$1.service"
