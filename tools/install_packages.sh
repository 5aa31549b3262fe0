#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# install_packages.sh FILE...: installs those Debian packages of the lists that are missing; silent and quick when none is.
# Uses sudo when not root. Services that a package brings are not started (RUNLEVEL=1).
set -eu
missing=""
for package in $(cat "$@" | grep -v '^#'); do
  case "$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)" in
    "install ok installed") ;;
    *) missing="$missing $package" ;;
  esac
done
[ -n "$missing" ] || exit 0
echo "installing:$missing"
if [ "$(id -u)" = 0 ]; then as_root=""; else as_root="sudo"; fi
export DEBIAN_FRONTEND=noninteractive
$as_root apt-get update -qq
# shellcheck disable=SC2086
$as_root env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
