# SPDX-License-Identifier: Apache-2.0
# sympool.  `make demo` and `make check` do everything, missing Debian packages included.
#
#   make [all]        library, tools, module           make check        the tests (CI)
#   make demo         train a classifier on 2 ranks    make check-long   full counts and heavy packages
#   make bench        measurements                     make check-asan | check-ubsan | check-tsan | check-matrix
#   make abidiff      against the committed interface  make abi-baseline: commit the interface as it is now
#   make install      PREFIX=/usr/local DESTDIR=       make fuzz          FUZZ_RUNS=20000 for each parser
#   make deps | format | clean
#
# Variables: CC, CFLAGS (added last), B (build folder, default build), SAN=address|undefined|thread, V=1 shows the commands.

CC      ?= gcc
ifeq ($(origin CC),default)
CC      := gcc
endif
AR      ?= ar
SAN     ?=
B       ?= build$(if $(SAN),/$(SAN))
PREFIX  ?= /usr/local
Q       := $(if $(V),,@)
LIBDIR  ?= $(PREFIX)/lib
VERSION := $(shell awk '/^\#define SYP_VERSION_(MAJOR|MINOR|PATCH)/ { v = v s $$3; s = "." } END { print v }' allocator/sympool.h)

WARN     = -Wall -Wextra -Wshadow -Wconversion -Wundef $(if $(CI),-Werror)
BASE     = -std=c11 -D_GNU_SOURCE -I. -O2 -g -fPIC -fvisibility=hidden -ffp-contract=off $(WARN) \
           $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer $(if $(filter undefined,$(SAN)),-fno-sanitize-recover=all))
# gcc says by itself which sanitizer it builds for, but for this one.
BASE    += $(if $(filter undefined,$(SAN)),-D__SANITIZE_UNDEFINED__=1)
ifneq ($(findstring clang,$(CC)),)
BASE    += $(if $(filter address,$(SAN)),-D__SANITIZE_ADDRESS__=1) $(if $(filter thread,$(SAN)),-D__SANITIZE_THREAD__=1)
endif
LIB_ONLY = -ftls-model=initial-exec -fno-plt
LDBASE   = $(if $(SAN),-fsanitize=$(SAN))
DEP      = -MMD -MP

# The library: every .c of these folders, in the order of the layer law.
LIB_SRC := $(wildcard pool/base/*.c) $(wildcard pool/*.c) pool/topo/topo.c $(wildcard bootstrap/*.c) \
           $(wildcard collectives/*.c) $(wildcard allocator/*.c)
LIB_OBJ := $(LIB_SRC:%.c=$(B)/obj/%.o)
# The same with test points compiled in, for the test programs.
TST_OBJ := $(LIB_SRC:%.c=$(B)/tobj/%.o)

# Libraries of other projects' names on top of libsympool.so, of which they see the public header alone.
SHM_SRC := $(wildcard allocator/compat/*.c)
SHM_OBJ  = $(SHM_SRC:%.c=$(B)/obj/%.o) $(B)/obj/pool/base/text.o

SO       = $(B)/libsympool.so.0
SHM_SO   = $(B)/libsympool-shm-compat.so.0
TOPO     = $(B)/modules/sympool-topo.so
AUTH     = $(B)/modules/sympool-auth.so
MODULES  = $(TOPO) $(AUTH)
STAT_OBJ = $(patsubst %.c,$(B)/obj/%.o,$(wildcard tools/stat/*.c))
RUN_OBJ  = $(patsubst %.c,$(B)/obj/%.o,$(wildcard tools/run/*.c))
BENCH_OBJ= $(patsubst %.c,$(B)/obj/%.o,$(filter-out tools/bench/peer_%,$(wildcard tools/bench/*.c)))
DEMO_OBJ = $(patsubst %.c,$(B)/obj/%.o,$(wildcard tools/demo/*.c))
TOOLS    = $(B)/sympool $(B)/sympool-run $(B)/sympool-bench $(B)/sympool-demo

SUPPORT_OBJ = $(patsubst %.c,$(B)/tobj/%.o,$(wildcard tests/support/*.c) $(SHM_SRC))
UNIT     = $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/unit/test_*.c))
RANKS    = $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/ranks/test_*.c))
FAULT    = $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/fault/test_*.c))

.DEFAULT_GOAL := all
.PHONY: all products modules demo check check-long check-asan check-ubsan check-tsan check-matrix abidiff abi-baseline bench peers install deps format clean tests fuzz fuzzers
.SECONDARY:

all: $(B)/.deps
	@$(MAKE) --no-print-directory products

modules: $(MODULES)
products: $(SO) $(B)/libsympool.so $(B)/libsympool.a $(SHM_SO) $(MODULES) $(TOOLS) $(B)/sympool.pc

# ------------------------------------------------------------------------------------------------ packages
# One list, in tools/deps.sh; the stamp makes it a no-op afterwards.
deps: $(B)/.deps
$(B)/.deps: tools/deps.sh
	@mkdir -p $(B)
	@sh tools/deps.sh
	@touch $@

# ------------------------------------------------------------------------------------------------- library
$(B)/obj/pool/% $(B)/obj/bootstrap/% $(B)/obj/collectives/% $(B)/obj/allocator/%: BASE += $(LIB_ONLY)
# The reduction loops are worth the vectoriser; the bits stay the same (elements are independent, -ffp-contract=off).
%/collectives/reduce_scalar.o: BASE += -O3
$(B)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(Q)echo "  CC  $<"
	$(Q)$(CC) $(BASE) $(DEP) $(CFLAGS) -c $< -o $@
$(B)/tobj/%.o: %.c
	@mkdir -p $(@D)
	$(Q)echo "  CC  $< (test)"
	$(Q)$(CC) $(BASE) -DSYP_TEST_POINTS $(DEP) $(CFLAGS) -c $< -o $@

$(SO): $(LIB_OBJ) allocator/sympool.map
	$(Q)echo "  LD  $@"
	$(Q)$(CC) -shared $(LDBASE) -Wl,-soname,libsympool.so.0 -Wl,--version-script=allocator/sympool.map \
	  -Wl,-Bsymbolic-functions -Wl,-z,relro -Wl,-z,now -Wl,-z,nodelete $(if $(SAN),,-Wl,-z,defs) -Wl,-z,noexecstack -o $@ $(LIB_OBJ)
$(B)/libsympool.so: $(SO)
	$(Q)ln -sf libsympool.so.0 $@
# One relocatable object with the internal names made local, so that a program's own names cannot clash.
$(B)/libsympool.a: $(LIB_OBJ)
	$(Q)echo "  AR  $@"
	$(Q)$(LD) -r -o $(B)/sympool-all.o $(LIB_OBJ)
	$(Q)objcopy --localize-hidden $(B)/sympool-all.o
	$(Q)rm -f $@ && $(AR) rcs $@ $(B)/sympool-all.o
$(SHM_SO): $(SHM_OBJ) allocator/compat/shm.map $(B)/libsympool.so
	$(Q)echo "  LD  $@"
	$(Q)$(CC) -shared $(LDBASE) -Wl,-soname,$(@F) -Wl,--version-script=allocator/compat/shm.map -Wl,-Bsymbolic-functions \
	  -Wl,-z,relro -Wl,-z,now $(if $(SAN),,-Wl,-z,defs) -Wl,-z,noexecstack -o $@ $(SHM_OBJ) -L$(B) -lsympool -Wl,-rpath,'$$ORIGIN'
$(TOPO): pool/topo/topo_module.c pool/topo/topo.h
$(TOPO): MODULE_LIBS = -lhwloc -lnuma
$(AUTH): bootstrap/auth/auth_module.c bootstrap/auth/auth_module.h
$(AUTH): MODULE_LIBS = -lsodium
$(MODULES):
	@mkdir -p $(@D)
	$(Q)echo "  LD  $@"
	$(Q)$(CC) $(BASE) -shared $(LDBASE) $(CFLAGS) $< -o $@ $(MODULE_LIBS)
PC = sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|'
$(B)/sympool.pc: tools/sympool.pc.in allocator/sympool.h Makefile
	$(Q)$(PC) $< > $@

# --------------------------------------------------------------------------------------------------- tools
LINK_SYMPOOL = -L$(B) -lsympool -Wl,-rpath,'$$ORIGIN:$$ORIGIN/../lib'
$(B)/sympool: $(STAT_OBJ)
	$(Q)echo "  LD  $@"
	$(Q)$(CC) $(LDBASE) -o $@ $(STAT_OBJ) -ljansson
$(B)/sympool-run: $(RUN_OBJ)
	$(Q)echo "  LD  $@"
	$(Q)$(CC) $(LDBASE) -o $@ $(RUN_OBJ) -ldl
$(B)/sympool-bench: $(BENCH_OBJ) $(B)/libsympool.so
	$(Q)echo "  LD  $@"
	$(Q)$(CC) $(LDBASE) -o $@ $(BENCH_OBJ) $(LINK_SYMPOOL) -lpthread -lm
$(B)/obj/tools/bench/trace.o: $(wildcard tools/bench/traces/*.trace)
$(B)/sympool-demo: $(DEMO_OBJ) $(B)/libsympool.so
	$(Q)echo "  LD  $@"
	$(Q)$(CC) $(LDBASE) -o $@ $(DEMO_OBJ) $(LINK_SYMPOOL) -lz -lm

demo: all
	@$(B)/sympool-run -n 2 --timeout 300 $(B)/sympool-demo

# Ranks of the peers' collectives, for those whose packages are there: sympool-bench itself knows none of them.
PEER_OBJ = $(patsubst %,$(B)/obj/tools/bench/%.o,util coll_ops coll_board coll_limits coll_work)
PEERS    = $(patsubst /usr/bin/mpicc.%,$(B)/sympool-bench-%,$(wildcard /usr/bin/mpicc.openmpi /usr/bin/mpicc.mpich)) \
           $(patsubst /usr/include/%/allreduce.h,$(B)/sympool-bench-%,$(wildcard /usr/include/gloo/allreduce.h))
$(B)/sympool-bench-openmpi $(B)/sympool-bench-mpich: $(B)/sympool-bench-%: tools/bench/peer_mpi.c tools/bench/coll.h $(PEER_OBJ)
	$(Q)echo "  LD  $@"
	$(Q)mpicc.$* -std=c11 -D_GNU_SOURCE -I. -O2 -g $(WARN) -o $@ $< $(PEER_OBJ)
$(B)/sympool-bench-gloo: tools/bench/peer_gloo.cc tools/bench/coll.h $(PEER_OBJ)
	$(Q)echo "  LD  $@"
	$(Q)$(CXX) -std=c++17 -D_GNU_SOURCE -I. -O2 -g -Wall -Wextra $(if $(CI),-Werror) -o $@ $< $(PEER_OBJ) -lgloo -lpthread
peers: all $(PEERS)

# The peers of heap and collectives; without them it says which were not measured.
bench: all
	@sh tools/deps.sh bench || true
	@$(MAKE) --no-print-directory peers
	@$(B)/sympool-bench all

# --------------------------------------------------------------------------------------------------- tests
$(B)/libtest.a: $(TST_OBJ) $(SUPPORT_OBJ)
	$(Q)rm -f $@ && $(AR) rcs $@ $^
$(B)/tests/%: $(B)/tobj/tests/%.o $(B)/libtest.a
	@mkdir -p $(@D)
	$(Q)echo "  LD  $@"
	$(Q)$(CC) $(LDBASE) -o $@ $< $(B)/libtest.a -lcunit -lpthread -lm
tests: $(UNIT) $(RANKS) $(FAULT)

# Fuzz targets: the library once more, by clang, with its fuzzer and sanitizers.
FUZZ     = $(patsubst tests/fuzz/fuzz_%.c,$(B)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
# The sanitizers look at everything; edges of the code that reads foreign bytes lead the fuzzer.  Comparisons are not traced: the seeds are
# well-formed, so that tracing found nothing more and took most of the time.
FUZZ_COV = bootstrap/% collectives/% pool/base/conf pool/base/text tests/%
FUZZ_SAN = -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer $(if $(filter $(FUZZ_COV),$*),\
           -fsanitize=fuzzer-no-link -fno-sanitize-coverage=indirect-calls -fno-sanitize-coverage=trace-cmp)
FUZZ_OBJ = $(LIB_SRC:%.c=$(B)/fobj/%.o) $(B)/fobj/tests/fuzz/fuzz.o
$(B)/fobj/%.o: %.c
	@mkdir -p $(@D)
	$(Q)echo "  CC  $< (fuzz)"
	$(Q)clang $(BASE) -DSYP_TEST_POINTS $(FUZZ_SAN) $(DEP) -c $< -o $@
$(B)/libfuzz.a: $(FUZZ_OBJ)
	$(Q)rm -f $@ && $(AR) rcs $@ $^
$(B)/fuzz/%: $(B)/fobj/tests/fuzz/fuzz_%.o $(B)/libfuzz.a
	@mkdir -p $(@D)
	$(Q)echo "  LD  $@"
	$(Q)clang -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -o $@ $< $(B)/libfuzz.a
fuzzers: $(FUZZ)
fuzz: $(B)/.deps
	@CI=1 $(MAKE) --no-print-directory fuzzers
	@B=$(B) FUZZ_RUNS=$(FUZZ_RUNS) sh tests/fuzz/run.sh

check: $(B)/.deps
	@CI=1 $(MAKE) --no-print-directory products tests fuzzers
	@B=$(B) sh tests/run.sh quick
check-long: $(B)/.deps
	@sh tools/deps.sh heavy
	@CI=1 $(MAKE) --no-print-directory products tests fuzzers
	@B=$(B) sh tests/run.sh long
check-asan check-ubsan check-tsan: check-%: $(B)/.deps
	@CI=1 $(MAKE) --no-print-directory SAN=$(SAN_$*) B=build/$(SAN_$*) tests modules
	@B=build/$(SAN_$*) sh tests/run.sh $*
check-matrix: $(B)/.deps
	@sh tests/matrix.sh
abidiff abi-baseline: all
	@sh tools/deps.sh abi
	@B=$(B) sh tests/abi.sh $(if $(filter abidiff,$@),check,baseline)
SAN_asan  = address
SAN_ubsan = undefined
SAN_tsan  = thread

format:
	clang-format-14 -i $$(git ls-files '*.c' '*.h')

# ------------------------------------------------------------------------------------------------- install
install: all
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(LIBDIR)/sympool $(DESTDIR)$(PREFIX)/include/sympool $(DESTDIR)$(PREFIX)/bin \
	  $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man7
	install -m 755 $(SO) $(DESTDIR)$(LIBDIR)/
	ln -sf libsympool.so.0 $(DESTDIR)$(LIBDIR)/libsympool.so
	install -m 644 $(B)/libsympool.a $(DESTDIR)$(LIBDIR)/
	install -m 755 $(MODULES) $(DESTDIR)$(LIBDIR)/sympool/
	install -m 755 $(SHM_SO) $(DESTDIR)$(LIBDIR)/
	ln -sf libsympool-shm-compat.so.0 $(DESTDIR)$(LIBDIR)/libsympool-shm-compat.so
	for pc in sympool sympool-shm-compat; do $(PC) tools/$$pc.pc.in > $(DESTDIR)$(LIBDIR)/pkgconfig/$$pc.pc || exit 1; done
	install -m 644 allocator/sympool.h $(DESTDIR)$(PREFIX)/include/
	install -m 644 allocator/compat/shm.h $(DESTDIR)$(PREFIX)/include/sympool/
	install -m 755 $(B)/sympool $(B)/sympool-run $(B)/sympool-bench $(DESTDIR)$(PREFIX)/bin/
	install -m 644 tools/stat/sympool.1 tools/run/sympool-run.1 tools/bench/sympool-bench.1 $(DESTDIR)$(PREFIX)/share/man/man1/
	install -m 644 allocator/sympool.7 $(DESTDIR)$(PREFIX)/share/man/man7/

clean:
	rm -rf build

-include $(shell find $(B) -name '*.d' 2>/dev/null)
