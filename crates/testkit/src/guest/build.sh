#!/bin/sh
# Makes the guest image of Debian's packages: build.sh PACKAGES ROOT OUT
#   PACKAGES  what the packages hold, unpacked into one folder
#   ROOT      the files of our own (init and what it starts)
#   OUT       gets vmlinuz, initramfs, guest.qcow2
# Needs busybox, e2fsprogs and qemu-img from the machine; everything else comes out of PACKAGES. No root, no mounts.
set -eu
packages=$1; root=$2; out=$3
work=$out/work
# Programs of the packages run here too (syslinux calls mtools).
export PATH="$packages/usr/bin:$PATH:/usr/sbin:/sbin" MTOOLS_SKIP_CHECK=1 LC_ALL=C
version=$(ls "$packages/lib/modules")
tree=$work/tree
for dir in bin dev etc lib lib64 persist proc run sys tmp usr/bin www; do mkdir -p "$tree/$dir"; done

cp "$packages/boot/vmlinuz-$version" "$out/vmlinuz"
cp "$packages/bin/busybox" "$tree/bin/busybox"
for applet in $("$packages/bin/busybox" --list); do [ "$applet" = busybox ] || ln -s busybox "$tree/bin/$applet"; done
ln -s bin "$tree/sbin"

# The SSH server with the libraries that it names, and theirs.
cp "$packages/usr/sbin/dropbear" "$tree/bin/dropbear"
mkdir -p "$tree/lib/x86_64-linux-gnu"
find "$packages/lib/x86_64-linux-gnu" "$packages/usr/lib/x86_64-linux-gnu" -maxdepth 1 | while read -r lib; do
  case ${lib##*/} in
    libc.so.6 | libcrypt.so.* | libtomcrypt.so.* | libtommath.so.* | libgmp.so.* | libz.so.*)
      cp -L "$lib" "$tree/lib/x86_64-linux-gnu/${lib##*/}" ;;
  esac
done
# Of names of one library, the one that the loader asks for.
rm -f "$tree"/lib/x86_64-linux-gnu/lib*.so.*.*
ld=$(find "$packages/lib/x86_64-linux-gnu" -name 'ld-linux-x86-64.so.2')
cp -L "$ld" "$tree/lib64/ld-linux-x86-64.so.2"

# The modules that a guest may need, and before each those that it needs: loading them in this order is faster than
# `modprobe`. What the kernel has built in has no line.
modules="virtio_pci virtio_blk virtio_net virtio_scsi sd_mod ata_piix ata_generic button evdev virtio_console virtio_balloon virtio-rng sr_mod
  isofs 8021q pvpanic-pci"
busybox depmod -b "$packages" "$version"
for module in $modules; do
  { grep "/$module\.ko[.a-z]*:" "$packages/lib/modules/$version/modules.dep" || :; } | tr -d ':' | tr ' ' '\n' | sed '1!G;h;$!d'
done | awk '$1 != "" && !seen[$1]++' >"$tree/etc/modules"
while read -r file; do
  mkdir -p "$tree/lib/modules/${file%/*}"
  cp "$packages/lib/modules/$version/$file" "$tree/lib/modules/$file"
done <"$tree/etc/modules"

cp -R "$root/." "$tree/"
# The password of CloudStack's own templates, until a password server tells another.
printf 'root:%s:19000:0:99999:7:::\n' "$(busybox mkpasswd -m sha256 -S arcusguest password)" >"$tree/etc/shadow.default"
chmod 755 "$tree/init" "$tree"/etc/guest/* "$tree"/etc/acpi/PWRF/* "$tree/bin/disk"
(cd "$tree" && find . | sort | busybox cpio -o -H newc -R 0:0 2>/dev/null) >"$out/initramfs"

# A disk that boots by itself: an MBR, a FAT with boot loader, kernel and initramfs, and an ext4 for what lasts.
mib=1048576
cmdline=$(cat "$root/etc/cmdline")
printf 'DEFAULT guest\nPROMPT 0\nTIMEOUT 0\nLABEL guest\n LINUX vmlinuz\n INITRD initrd\n APPEND %s\n' "$cmdline" >"$work/syslinux.cfg"
disk=$work/disk
truncate -s "$((66 * mib))" "$disk"
truncate -s "$((40 * mib))" "$work/fat"
mformat -i "$work/fat" -t 80 -h 32 -s 32 -H 2048 -v ARCUSBOOT ::
mcopy -i "$work/fat" "$out/vmlinuz" ::vmlinuz
mcopy -i "$work/fat" "$out/initramfs" ::initrd
mcopy -i "$work/fat" "$work/syslinux.cfg" ::syslinux.cfg
syslinux --install "$work/fat"
truncate -s "$((24 * mib))" "$work/ext4"
mke2fs -q -F -t ext4 -L arcus-persist -E root_owner=0:0 "$work/ext4"
dd if="$work/fat" of="$disk" bs=$mib seek=1 conv=notrunc,sparse status=none
dd if="$work/ext4" of="$disk" bs=$mib seek=41 conv=notrunc,sparse status=none
# Two entries: flags, start (CHS unused), type, end (CHS unused), first sector, sectors, as little-endian numbers.
{
  head -c 440 "$packages/usr/lib/syslinux/mbr/mbr.bin"
  printf '\000\000\000\000\000\000'
  printf '\200\376\377\377\016\376\377\377\000\010\000\000\000\100\001\000' # 2048, 81920
  printf '\000\376\377\377\203\376\377\377\000\110\001\000\000\300\000\000' # 83968, 49152
} >"$work/mbr"
dd if="$work/mbr" of="$disk" conv=notrunc status=none
printf '\125\252' | dd of="$disk" bs=1 seek=510 conv=notrunc status=none
qemu-img convert -q -O qcow2 "$disk" "$out/guest.qcow2"
rm -rf "$work"
