#!/bin/sh
# Install SLURM for tests/slurm, where apt can. Elsewhere say so and go on: without it those tests are skipped.
PATH=$PATH:/usr/sbin
command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v sbatch >/dev/null && exit 0

packages="slurmctld slurmd slurm-client"
as_root=
[ "$(id -u)" = 0 ] || as_root="sudo -n"
if command -v apt-get >/dev/null && $as_root true 2>/dev/null; then
    # shellcheck disable=SC2086  # several words
    $as_root apt-get update -qq >/dev/null &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null &&
        exit 0
fi
echo "SLURM is not here and can't be installed from here, so its tests are skipped. By hand: apt-get install $packages"
