#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The manual page and the settings table name the same SYMPOOL_* variables: each setting is documented, and each
# documented name is known to the code (the launcher's own included).
cd "$(dirname "$0")/../.." || exit 1
table=pool/base/conf_table.h
page=allocator/sympool.7
if [ ! -f $page ]; then
    echo "SKIP: $page does not exist"
    exit 0
fi
failed=0
settings=$(sed -n 's/^CONF([A-Z_0-9]*, *"\(SYMPOOL_[A-Z0-9_]*\)".*/\1/p' $table)
if [ "$(echo "$settings" | grep -c .)" != "$(grep -c '^CONF(' $table)" ]; then
    echo "FAIL settings: $table has entries this check cannot read"
    exit 1
fi
text=$(sed 's/\\_/_/g; s/\\&//g; s/\\-/-/g' $page)
for name in $settings; do
    echo "$text" | grep -qw "$name" && continue
    echo "FAIL settings: $name is in $table but not in $page"
    failed=1
done
for name in $(echo "$text" | grep -ow 'SYMPOOL_[A-Z][A-Z0-9_]*' | sort -u); do
    echo "$settings" | grep -qx "$name" && continue
    grep -rqw --include='*.[ch]' "$name" bootstrap allocator tools && continue
    echo "FAIL settings: $name is in $page but nothing reads it"
    failed=1
done
[ $failed = 0 ] && echo "ok settings: $(echo "$settings" | wc -l) documented"
exit $failed
