#!/usr/bin/env bash
# Builds dist/mqway_VERSION_ARCHITECTURE.deb from the package that `npm pack` makes and the modules of package-lock.json, for the architecture of this
# machine. The same commit gives the same bytes: all times are SOURCE_DATE_EPOCH, which is the commit's if it is not set.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
version=$(node -p 'require("./package.json").version')
architecture=$(dpkg --print-architecture)
case $architecture in amd64) prebuild=linux-x64 ;; arm64) prebuild=linux-arm64 ;; *) echo "no prebuilt modules for $architecture" >&2; exit 1 ;; esac
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
maintainer=${MAINTAINER:-the mqway authors <mqway@localhost>}
umask 022
staging=$(mktemp -d)
trap 'rm -rf "$staging"' EXIT

npm pack --silent --pack-destination "$staging" >/dev/null
tree=$staging/tree
lib=$tree/usr/lib/mqway
doc=$tree/usr/share/doc/mqway
mkdir -p "$lib" "$doc" "$tree"/DEBIAN "$tree"/usr/{bin,share/man/man1} "$tree"/usr/lib/systemd/system "$tree"/etc/mqway
tar -xzf "$staging"/mqway-*.tgz -C "$lib" --strip-components=1
cp package-lock.json "$lib"
(cd "$lib" && npm ci --silent --omit=dev --ignore-scripts --prefer-offline --no-audit --no-fund)

# What only compilers, editors and other systems need.
rm -rf "$lib"/package-lock.json "$lib"/node_modules/.package-lock.json "$lib"/node_modules/.bin "$lib"/node_modules/classic-level/{deps,binding.gyp}
find "$lib/node_modules" -path '*/prebuilds/*' -mindepth 1 ! -path "*/$prebuild" ! -path "*/$prebuild/*" -prune -exec rm -rf {} +
find "$lib/node_modules" \( -name '*musl.node' -o -name '*.d.ts' -o -name '*.map' -o -name 'CHANGELOG*' -o -name '.*' -o -name Makefile -o -name '*.sh' \) -prune -exec rm -rf {} +
find "$lib/node_modules" -type d \( -name test -o -name tests -o -name integration -o -name benchmark -o -name benchmarks \) -prune -exec rm -rf {} +
find "$lib" -type d -empty -delete
find "$lib" -type f -exec chmod 644 {} +
find "$lib" -type d -exec chmod 755 {} +
find "$lib/node_modules" -name '*.node' -exec strip --strip-unneeded {} +
chmod 755 "$lib/dist/cli.js"

ln -s ../lib/mqway/dist/cli.js "$tree/usr/bin/mqway"
install -m 644 examples/systemd/* "$tree/usr/lib/systemd/system"
install -m 644 packaging/debian/mqway.yaml "$tree/etc/mqway/mqway.yaml"
echo /etc/mqway/mqway.yaml >"$tree/DEBIAN/conffiles"
gzip -9nc packaging/mqway.1 >"$tree/usr/share/man/man1/mqway.1.gz"
printf 'mqway (%s) unstable; urgency=medium\n\n  * /usr/lib/mqway/CHANGELOG.md\n\n -- %s  %s\n' "$version" "$maintainer" \
  "$(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")" | gzip -9n >"$doc/changelog.gz"
mkdir -p "$tree/usr/share/lintian/overrides"
install -m 644 packaging/debian/lintian-overrides "$tree/usr/share/lintian/overrides/mqway"
node scripts/debian-copyright.js "$lib" >"$doc/copyright"
install -m 755 packaging/debian/{postinst,prerm,postrm} "$tree/DEBIAN"
size=$(du -sk --apparent-size --exclude=DEBIAN "$tree" | cut -f1)
sed "s/@VERSION@/$version/; s/@ARCHITECTURE@/$architecture/; s/@MAINTAINER@/$maintainer/; s/@SIZE@/$size/" packaging/debian/control.in >"$tree/DEBIAN/control"
(cd "$tree" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
chmod 644 "$tree"/DEBIAN/{control,conffiles,md5sums}

find "$tree" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
mkdir -p "$root/dist"
package=$root/dist/mqway_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zxz -z4 --build "$tree" "$package" >/dev/null
echo "$package"
