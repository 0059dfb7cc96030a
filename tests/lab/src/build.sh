#!/bin/sh
# Makes what the lab's machines boot: build.sh SUITE SOURCES PACKAGES KERNEL ROOT OUT
#   SUITE     Debian's release, e.g. bookworm
#   SOURCES   a file that tells where its packages are (apt's format), or nothing for Debian's own place
#   PACKAGES  names with commas between, which come with all that they depend on
#   KERNEL    the unpacked package of the kernel
#   ROOT      the files of our own
#   OUT       gets vmlinuz, initramfs, root.img (ext4)
# Needs root, mmdebstrap, busybox and e2fsprogs.
set -eu
suite=$1; sources=$2; packages=$3; kernel=$4; root=$5; out=$6
export PATH="$PATH:/usr/sbin:/sbin" LC_ALL=C
version=$(ls "$kernel/lib/modules")
work=$out/work
tree=$work/tree
mkdir -p "$work"
# shellcheck disable=SC2086
mmdebstrap --quiet --mode=root --variant=minbase --format=directory --include="$packages" \
  --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --skip=check/qemu "$suite" "$tree" $sources
cp "$kernel/boot/vmlinuz-$version" "$out/vmlinuz"
cp -R "$kernel/lib/modules/$version" "$tree/lib/modules.new"
mkdir -p "$tree/usr/lib/modules"
mv "$tree/lib/modules.new" "$tree/usr/lib/modules/$version"
chroot "$tree" depmod "$version"
cp -R "$root/lab" "$root/etc" "$tree/"
chmod 755 "$tree"/lab/*
rm -f "$tree/etc/machine-id" "$tree/etc/hostname" "$tree/etc/resolv.conf"
# Empty, not missing: else systemd takes each boot for the first one, and switches everything on.
: >"$tree/etc/machine-id"
for applet in init poweroff reboot halt; do ln -sf /bin/busybox "$tree/sbin/$applet"; done
# Where systemd is process 1: what a test needs, and no more.
if [ -e "$tree/lib/systemd/systemd" ]; then
  units=$tree/etc/systemd/system
  mkdir -p "$units/multi-user.target.wants"
  ln -sf /etc/systemd/system/lab.service "$units/multi-user.target.wants/lab.service"
  ln -sf /lib/systemd/system/multi-user.target "$units/default.target"
  # What udev would load by what the processor can do.
  echo kvm_amd >"$tree/etc/modules-load.d/kvm.conf"
  for unit in qemu-guest-agent.service systemd-networkd.service systemd-resolved.service systemd-timesyncd.service nfs-server.service \
    rpcbind.service rpcbind.socket haproxy.service getty@tty1.service serial-getty@ttyS0.service systemd-vconsole-setup.service \
    e2scrub_all.timer e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer logrotate.timer \
    man-db.timer libvirt-guests.service; do
    ln -sf /dev/null "$units/$unit"
  done
fi

# What finds the root file system: the modules for its disk, in the order of loading.
early=$work/early
mkdir -p "$early/bin" "$early/dev" "$early/proc" "$early/sys" "$early/new" "$early/modules"
cp "$tree/bin/busybox" "$early/bin/busybox"
dep=$tree/usr/lib/modules/$version/modules.dep
for module in virtio_pci virtio_blk virtio_net virtio_console virtio-rng; do
  { grep "/$module\.ko[.a-z]*:" "$dep" || :; } | tr -d ':' | tr ' ' '\n' | sed '1!G;h;$!d'
done | awk '$1 != "" && !seen[$1]++' | while read -r file; do
  cp "$tree/usr/lib/modules/$version/$file" "$early/modules/"
  echo "${file##*/}" >>"$early/modules/order"
done
cp "$root/early" "$early/init"
chmod 755 "$early/init"
(cd "$early" && find . | sort | busybox cpio -o -H newc -R 0:0 2>/dev/null) >"$out/initramfs"

truncate -s 6G "$out/root.img"
mke2fs -q -F -t ext4 -L lab-root -N 200000 -E lazy_itable_init=0,lazy_journal_init=0 -d "$tree" "$out/root.img"
rm -rf "$work"
