#!/bin/sh
# Moves the game from one version to the next, and stops the old one when its last session has ended.
# Where a step fails, nothing is stopped.
# usage: deploy.sh OLD NEW, such as: deploy.sh v1 v2
set -e
systemctl enable --now "game@$2.service"
reuseportctl migrate game --to-unit "game@$2.service" --wait-sessions 6h
systemctl disable --now "game@$1.service"
