# pali - see README.md for the two commands to know, HACKING.md for the map.
#
#   make            build/pali           make check      all tests, plain and sanitized
#   make demo       build and show it    make install    PREFIX=/usr/local DESTDIR=
#   make check-arm  the ARM kernels under an emulator
#   make check-gpu  the device tests     make bench-gpu  figures of the device (both skip without one)
#   make deps       Debian packages      make format lint fuzz bench clean
#
# Variants never share objects: build/release, build/asan (ASAN=1), build/fuzz, build/cuda-<ARCH>.
# The CUDA plugin is built when nvcc is found (CUDA=0: not), for ARCH="sm_90" or several.

# None of make's own rules is used, and looking through them takes it minutes.
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:

PREFIX ?= /usr/local
CC ?= gcc
CXX ?= g++
CLANG ?= clang
PKG_CONFIG ?= pkg-config
WERROR ?= $(if $(CI),1,0)

DEB_PACKAGES := gcc g++ make pkg-config libsentencepiece-dev libjansson-dev libstb-dev \
                libncurses-dev libreadline-dev libchafa-dev libglib2.0-dev libpng-dev \
                libjpeg-dev libseccomp-dev \
                libwebp-dev liblcms2-dev libcurl4-openssl-dev zlib1g-dev
DEB_TEST_PACKAGES := libcmocka-dev libvterm-dev clang libclang-rt-14-dev libheif-dev \
                     $(if $(filter x86_64,$(shell uname -m)),gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)
NVCC ?= $(firstword $(wildcard /usr/local/cuda/bin/nvcc) nvcc)
CUDA := $(or $(CUDA),$(if $(shell command -v $(NVCC)),1,0))
ARCH ?= sm_90
LIBS_USED = sentencepiece jansson stb chafa glib-2.0 ncursesw readline libpng libjpeg libseccomp \
            libwebp libwebpdemux lcms2 libcurl zlib $(HEIF)
# HEIC and AVIF are read where libheif is there.
HEIF = $(eval HEIF := $(shell $(PKG_CONFIG) --exists libheif && echo libheif))$(HEIF)

variant := $(if $(ASAN),asan,release)
B := build/$(variant)

WARN := -Wall -Wextra -Wshadow -Wpointer-arith -Wvla -Wformat=2 $(if $(filter 1,$(WERROR)),-Werror)
WARN_C := $(WARN) -Wmissing-prototypes -Wstrict-prototypes
SANITIZE := -fsanitize=address,undefined
OPT := $(if $(ASAN),-O1 -g -fno-omit-frame-pointer $(SANITIZE) -fno-sanitize-recover=all,-O3 -g)
# Asked once, and not before something is compiled: `make deps` comes first.
PKG_CFLAGS = $(eval PKG_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(LIBS_USED)) $(if $(HEIF),-DPALI_HEIF))$(PKG_CFLAGS)
PKG_LIBS = $(eval PKG_LIBS := -Wl,--as-needed $(shell $(PKG_CONFIG) --libs $(LIBS_USED)))$(PKG_LIBS)
# No -ffast-math: it lets the compiler assume that infinities never happen.
# -ffp-contract=off keeps the plain path the same on every machine.
BASE := -I. -D_GNU_SOURCE -pthread -fPIC -ffp-contract=off -MMD -MP $(OPT)
CFLAGS_ALL = -std=c11 $(BASE) $(WARN_C) $(PKG_CFLAGS) $(CFLAGS)
CXXFLAGS_ALL = -std=c++17 $(BASE) $(WARN) $(PKG_CFLAGS) $(CXXFLAGS)
LDLIBS_ALL = $(PKG_LIBS) -ldl -lm -pthread $(LDLIBS)

core_src := $(wildcard core/*.c core/cpu/*.c core/*.cc)
ui_src := $(wildcard ui/*.c)
app_src := $(wildcard app/*.c)
gpu_src := $(wildcard gpu/*.cu)
emu_src := $(filter-out gpu/gemm_cublaslt.cu,$(gpu_src)) $(wildcard tests/emu/*.cc)
test_src := $(wildcard $(foreach d,core ui app e2e gpu,tests/$(d)/test_*.c) tests/gpu/test_*.cu)
fuzz_src := $(wildcard tests/fuzz/fuzz_*.c)

obj = $(patsubst %,$(B)/%.o,$(1))
core_obj := $(call obj,$(core_src))
ui_obj := $(call obj,$(ui_src))
app_obj := $(call obj,$(filter-out app/main.c,$(app_src)))
tests := $(patsubst tests/%,$(B)/tests/%,$(basename $(test_src)))

.PHONY: all deps demo demo-accuracy check test check-gpu bench-gpu check-arm arm-tests gpu-tests gpu-benches gpu-carry FORCE install uninstall format lint layers fuzz bench clean
.SECONDARY:
all: build/pali $(if $(filter 1,$(CUDA)),build/pali-cuda.so)

build/pali: $(B)/pali
	@cp -f $< $@

$(B)/libpali.a: $(core_obj)
	@rm -f $@ && ar rcs $@ $^
$(B)/libui.a: $(ui_obj)
	@rm -f $@ && ar rcs $@ $^
$(B)/libapp.a: $(app_obj)
	@rm -f $@ && ar rcs $@ $^

$(B)/pali: $(B)/app/main.c.o $(B)/libapp.a $(B)/libui.a $(B)/libpali.a
	$(CXX) $(OPT) -o $@ $^ $(LDLIBS_ALL)

# Code for instruction sets the building machine may lack: chosen at run time. Other
# processors' compilers do not know the options, and the files are empty to them.
on = $(if $(filter $(1)-%,$(shell $(CC) -dumpmachine)),$(2))
AVX2 := -mavx2 -mfma -mf16c
AVX512 := $(AVX2) -mavx512f -mavx512bw -mavx512vl -mavx512dq
$(B)/core/cpu/%_avx2.c.o build/fuzz/core/cpu/%_avx2.c.o: ISA = $(call on,x86_64,$(AVX2))
$(B)/core/cpu/%_avx512.c.o build/fuzz/core/cpu/%_avx512.c.o: ISA = $(call on,x86_64,$(AVX512))
$(B)/core/cpu/%_avx512vnni.c.o build/fuzz/core/cpu/%_avx512vnni.c.o: ISA = $(call on,x86_64,$(AVX512) -mavx512vnni)
$(B)/core/cpu/%_amx.c.o build/fuzz/core/cpu/%_amx.c.o: ISA = $(call on,x86_64,$(AVX512) -mavx512vnni -mavx512bf16 -mamx-tile -mamx-bf16)
$(B)/core/cpu/%_avx512bf16.c.o build/fuzz/core/cpu/%_avx512bf16.c.o: ISA = $(call on,x86_64,$(AVX512) -mavx512vnni -mavx512bf16)
# The readers are other people's code: our warnings do not apply to them, and hostile
# numbers overflow in them, which -fwrapv makes harmless.
$(B)/core/image_stb.c.o: WARN_C := -w
$(B)/core/image_stb.c.o build/fuzz/core/image_stb.c.o: ISA := -fwrapv -fno-sanitize=shift
# gcc 12 for ARM crashes (vect_transform_reduction) on the tests' sums and maxima in one loop.
$(B)/tests/core/%.c.o: ISA = $(call on,aarch64,-fno-tree-loop-vectorize)

$(B)/%.c.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(ISA) -c -o $@ $<
$(B)/%.cc.o: %.cc
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS_ALL) $(ISA) -c -o $@ $<

$(B)/tests/%: $(B)/tests/%.c.o $(B)/libapp.a $(B)/libui.a $(B)/libpali.a
	@mkdir -p $(@D)
	$(CXX) $(OPT) -o $@ $^ $(LDLIBS_ALL) -lcmocka -lvterm

# --- CUDA: gpu/ by nvcc into the plugin, and by g++ for the emulator, which the tests use ---
space := $(subst ,, )
G := build/cuda-$(subst $(space),-,$(strip $(ARCH)))
NVCC_FLAGS = -std=c++17 -O3 -lineinfo -I. $(foreach a,$(ARCH),-gencode arch=$(a:sm_%=compute_%),code=$(a)) \
             -Xcompiler -fPIC,-Wall $(if $(filter 1,$(WERROR)),-Werror all-warnings) -MMD -MP $(NVFLAGS)
gpu_obj := $(patsubst %,$(G)/%.o,$(gpu_src))
plugin_core := error quant matrix # the plugin's own copies

$(G)/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVCC_FLAGS) -c -o $@ $<
$(G)/core/%.c.o: core/%.c
	@mkdir -p $(@D)
	$(CC) -std=c11 -I. -D_GNU_SOURCE -O2 -fPIC -ffp-contract=off -MMD -MP $(WARN_C) -c -o $@ $<
$(G)/pali-cuda.so: $(gpu_obj) $(patsubst %,$(G)/core/%.c.o,$(plugin_core))
	$(NVCC) -shared -cudart static -o $@ $^ -ldl
# Compared, not dated: ARCH may have been another one in between.
build/pali-cuda.so: $(G)/pali-cuda.so FORCE
	@cmp -s $< $@ || cp -f $< $@
FORCE:

$(B)/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(CXX) -x c++ $(CXXFLAGS_ALL) -Itests/emu -c -o $@ $<
$(B)/tests/emu/%.cc.o: ISA := -Itests/emu
$(B)/libcuda-emu.a: $(call obj,$(emu_src))
	@rm -f $@ && ar rcs $@ $^
$(B)/pali-cuda-emu.so: $(call obj,$(emu_src) $(patsubst %,core/%.c,$(plugin_core)))
	$(CXX) $(OPT) -shared -o $@ $^ -ldl -lm -pthread
$(B)/tests/gpu/%: $(B)/tests/gpu/%.c.o $(B)/libcuda-emu.a $(B)/libpali.a
	$(CXX) $(OPT) -o $@ $^ $(LDLIBS_ALL) -lcmocka
$(B)/tests/gpu/%: $(B)/tests/gpu/%.cu.o $(B)/libcuda-emu.a $(B)/libpali.a
	$(CXX) $(OPT) -o $@ $^ $(LDLIBS_ALL) -lcmocka

# Found by its name beside the program, as the real one is.
$(B)/tests/gpu/pali-cuda.so: $(B)/pali-cuda-emu.so
	@mkdir -p $(@D) && cp -f $< $@
$(B)/tests/gpu/pali: $(B)/pali
	@mkdir -p $(@D) && cp -f $< $@
$(B)/tests/gpu/old_plugin.so: tests/gpu/old_plugin.c
	@mkdir -p $(@D)
	$(CC) -std=c11 -I. -fPIC -shared $(WARN_C) -o $@ $<
$(B)/tests/gpu/test_plugin: | $(addprefix $(B)/tests/gpu/,pali-cuda.so pali old_plugin.so)

# On a device: the tests of the backend with nvcc's objects in the emulator's place, for the
# device's own ARCH (tests/gpu/check.sh finds it), and the benchmarks.
gpu_tests := $(patsubst tests/%,$(G)/tests/%,$(basename $(wildcard tests/gpu/test_cuda_*.c tests/gpu/test_cuda_*.cu)))
gpu_benches := $(G)/tests/gpu/bench_read $(G)/tests/gpu/bench_kernels $(B)/tests/gpu/bench_cuda
link_device = $(NVCC) -cudart static -o $@ $^ $(filter -l% -L%,$(PKG_LIBS)) -ldl -lm -lcmocka -Xcompiler -pthread
with_device := $(B)/tests/gpu/on_device.c.o $(gpu_obj) $(B)/libpali.a
$(G)/tests/gpu/test_%: $(B)/tests/gpu/test_%.c.o $(with_device)
	@mkdir -p $(@D)
	$(link_device)
$(G)/tests/gpu/test_%: $(G)/tests/gpu/test_%.cu.o $(with_device)
	$(link_device)
$(G)/tests/gpu/bench_kernels: $(G)/tests/gpu/bench_kernels.cu.o $(G)/gpu/gemv.cu.o $(G)/gpu/tune.cu.o
	$(NVCC) -cudart static -o $@ $^
$(G)/tests/gpu/bench_%: $(G)/tests/gpu/bench_%.cu.o
	$(NVCC) -cudart static -o $@ $^
gpu-tests: $(gpu_tests) build/pali-cuda.so build/pali
gpu-benches: $(gpu_benches) build/pali-cuda.so build/pali
# What both run, for a machine with a device that lacks the packages to build it.
gpu-carry: gpu-tests gpu-benches
	@tests/gpu/carry.sh "$(strip $(ARCH))" $(G) $(B)
check-gpu bench-gpu:
	@tests/gpu/$(@:-gpu=).sh "$(NVCC)"

# This one makes allocations fail.
$(B)/tests/core/test_image_memory: LDLIBS += -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc

-include $(shell find build -name '*.d' 2>/dev/null)
# The compiler makes them. Without this make looks for chains of rules that would, for minutes.
%.d: ;

# --- tests -----------------------------------------------------------------------
# test: this variant's tests. check: everything CI runs.
test: $(B)/pali $(tests)
	@PALI=$(B)/pali tests/run.sh $(B)

check: deps
	@tests/check.sh

layers:
	@tests/layers.sh

# --- 64-bit ARM on another processor: what needs libc alone, cross-compiled and emulated ----
# On ARM itself this is part of `make test`; where a tool is missing it is one skipped test.
ARM_CC := aarch64-linux-gnu-gcc
# Not images and the kept embeddings, whose libraries have headers for each processor.
ARM_TESTS := cpu_kernels cpu_quant cpu_model cpu_pool sample
A := build/arm64
arm_obj := $(patsubst %,$(A)/%.o,$(filter-out core/image% core/keep.c,$(wildcard core/*.c core/cpu/*.c)))
$(A)/tests/core/%.c.o: ISA := -fno-tree-loop-vectorize
$(A)/%.c.o: %.c
	@mkdir -p $(@D)
	$(ARM_CC) -std=c11 -Itests/arm $(BASE) -ffunction-sections $(WARN_C) $(ISA) -c -o $@ $<
$(A)/libpali.a: $(arm_obj)
	@rm -f $@ && $(ARM_CC:gcc=ar) rcs $@ $^
# What a program does not call may want libraries that are not here: it is thrown away.
$(A)/tests/test_%: $(A)/tests/core/test_%.c.o $(A)/libpali.a
	$(ARM_CC) -static -pthread -Wl,--gc-sections -o $@ $^ -lm
arm-tests: $(patsubst %,$(A)/tests/test_%,$(ARM_TESTS))
check-arm:
	@if command -v $(ARM_CC) >/dev/null && command -v qemu-aarch64 >/dev/null; then \
	    rm -f $(A)/tests/test_* && $(MAKE) --no-print-directory arm-tests && EMULATOR=qemu-aarch64 tests/run.sh $(A); \
	else echo "0 passed, 0 failed, 1 skipped"; fi

# --- fuzzing: libFuzzer under ASan and UBSan; SECONDS is per target ------------------
SECONDS_EACH = $(if $(filter command%,$(origin SECONDS)),$(SECONDS),60)
fuzzers := $(patsubst tests/fuzz/%.c,build/fuzz/%,$(fuzz_src))
fuzz_obj := $(patsubst %,build/fuzz/%.o,$(core_src) $(ui_src) app/chatfile.c app/hub_api.c app/settings.c app/tiles.c)
FUZZ_FLAGS := -g -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
build/fuzz/%.c.o: %.c
	@mkdir -p $(@D)
	$(CLANG) -std=c11 $(FUZZ_FLAGS) -I. -D_GNU_SOURCE -pthread -MMD -MP $(PKG_CFLAGS) $(ISA) -w -c -o $@ $<
build/fuzz/%.cc.o: %.cc
	@mkdir -p $(@D)
	$(CLANG)++ -std=c++17 $(FUZZ_FLAGS) -I. -D_GNU_SOURCE -pthread -MMD -MP $(PKG_CFLAGS) -w -c -o $@ $<
build/fuzz/libpali.a: $(fuzz_obj)
	@rm -f $@ && ar rcs $@ $^
build/fuzz/fuzz_%: build/fuzz/tests/fuzz/fuzz_%.c.o build/fuzz/libpali.a
	$(CLANG)++ -fsanitize=fuzzer,address,undefined -o $@ $^ $(LDLIBS_ALL)
fuzz: $(fuzzers)
	@tests/fuzz/run.sh $(SECONDS_EACH) $(fuzzers)

# --- benchmarks: figures for BENCHMARKS.md, no part of the tests -----------------------
# MODEL=DIR: also its one-token products, `pali bench`, and pali beside transformers on it, in turn (PYTHON that has
# torch and transformers).
benches := $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/bench/bench_*.c))
bench: $(B)/pali $(benches)
	@( for b in $(benches); do case $$b in *bench_quant) set -- $(MODEL);; *) set --;; esac; \
	PALI=$(B)/pali $$b "$$@" || exit 1; echo; done; \
	$(if $(MODEL),$(B)/pali bench -m $(MODEL) || exit 1;) \
	$(if $(MODEL),$(PYTHON) tests/bench/load.py $(MODEL) --pali $(B)/pali $(LOAD),echo "MODEL=DIR: pali and transformers on a model"); \
	) >build/bench.txt; status=$$?; cat build/bench.txt; exit $$status

# --- the rest ----------------------------------------------------------------------
deps:
	@tests/deps.sh $(DEB_PACKAGES) $(if $(filter check,$(MAKECMDGOALS)),$(DEB_TEST_PACKAGES))

demo: deps
	@$(MAKE) --no-print-directory -s -j$(shell nproc) build/pali
	@build/pali --demo

# The miniature model on pictures it never saw, through build/pali: a table a task. Needs
# Python with numpy and Pillow (and the DejaVu and Liberation fonts); takes minutes.
PYTHON ?= python3
demo-accuracy: build/pali
	$(PYTHON) tests/reference/demo_eval.py --out build/demo-accuracy --count 3000 --seed 20261130 --pali build/pali --model assets/demo \
		--extra="$(DEMO_ARGS)" $(EVAL)

# Takes the CUDA plugin when `make` has built it.
install: build/pali
	install -Dm755 build/pali $(DESTDIR)$(PREFIX)/bin/pali
	install -Dm644 man/pali.1 $(DESTDIR)$(PREFIX)/share/man/man1/pali.1
	$(if $(wildcard build/pali-cuda.so),install -Dm755 build/pali-cuda.so $(DESTDIR)$(PREFIX)/lib/pali/pali-cuda.so)
	install -d $(DESTDIR)$(PREFIX)/share/pali/demo
	install -m644 $(filter-out %.py %.md assets/demo/curve.png,$(wildcard assets/demo/*.*)) $(DESTDIR)$(PREFIX)/share/pali/demo
uninstall:
	rm -rf $(DESTDIR)$(PREFIX)/bin/pali $(DESTDIR)$(PREFIX)/lib/pali $(DESTDIR)$(PREFIX)/share/man/man1/pali.1 $(DESTDIR)$(PREFIX)/share/pali

format:
	clang-format -i $(shell git ls-files '*.c' '*.h' '*.cc' '*.cu' '*.cuh')
lint:
	clang-format --dry-run -Werror $(shell git ls-files '*.c' '*.h' '*.cc' '*.cu' '*.cuh')
	cppcheck --quiet --error-exitcode=1 --suppressions-list=tests/cppcheck.txt --enable=warning,portability -I. -D_GNU_SOURCE core/*.c core/cpu/*.c app ui

clean:
	rm -rf build
