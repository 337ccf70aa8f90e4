/* What a machine offers, read from made-up /proc and /sys folders. */
#include "tests/test.h"

#include "core/cpu/cpus.h"
#include "core/machine.h"

#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[64];

static int setup(void **unused) {
    (void)unused;
    strcpy(root, "/tmp/pali-machine-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *s, int flag, struct FTW *f) {
    (void)s;
    (void)flag;
    (void)f;
    return remove(path);
}

static int teardown(void **unused) {
    (void)unused;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Writes text to root/path, making its folders. */
static void put_file(const char *path, const char *text) {
    char whole[512];
    snprintf(whole, sizeof whole, "%s%s", root, path);
    for (char *p = whole + strlen(root) + 1; (p = strchr(p, '/')); *p++ = '/') {
        *p = '\0';
        mkdir(whole, 0700);
    }
    FILE *f = fopen(whole, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void put_memory(void) {
    put_file("/proc/meminfo",
             "MemTotal:       16000 kB\nMemFree:  1 kB\nMemAvailable:    9000 kB\n");
}

static pali_machine look(void) {
    pali_machine m;
    pali_machine_look(root, &m);
    return m;
}

static void machine_nothing_readable_is_zero(void **unused) {
    (void)unused;
    pali_machine m = look();
    assert_true(m.cores >= 1);
    assert_string_equal(m.cpu, "");
    assert_true(m.memory == 0 && m.available == 0 && m.limit == 0 && m.quota == 0);
    assert_int_equal(m.nvidia_cards, 0);
    assert_string_equal(m.nvidia_driver, "");
}

static void machine_plain_one_has_no_limits(void **unused) {
    (void)unused;
    put_memory();
    put_file("/proc/cpuinfo", "processor\t: 0\nmodel name\t: AMD EPYC 9B14\nflags\t: fpu\n");
    put_file("/proc/self/cgroup", "0::/user.slice/a\n");
    put_file("/sys/fs/cgroup/user.slice/a/memory.max", "max\n");
    put_file("/sys/fs/cgroup/user.slice/a/cpu.max", "max 100000\n");
    pali_machine m = look();
    assert_string_equal(m.cpu, "AMD EPYC 9B14");
    assert_int_equal(m.memory, 16000 * 1024);
    assert_int_equal(m.available, 9000 * 1024);
    assert_true(m.limit == 0 && m.quota == 0);
}

/* ARM's system has numbers in place of a name. */
static void machine_arm_is_told_by_numbers(void **unused) {
    (void)unused;
    put_file("/proc/cpuinfo",
             "processor\t: 0\nBogoMIPS\t: 243.75\n"
             "Features\t: fp asimd evtstrm aes atomics asimdhp asimddp sve i8mm bf16 sve2x\n"
             "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x1\n"
             "CPU part\t: 0xd40\nCPU revision\t: 1\n\nprocessor\t: 1\n");
    assert_string_equal(look().cpu,
                        "ARMv8, implementer 0x41, part 0xd40, with asimd asimddp i8mm bf16 sve");
    put_file(
        "/proc/cpuinfo",
        "CPU architecture: AArch64\nCPU implementer\t: 0x61\nCPU part\t: 0x022\nFeatures\t:\n");
    assert_string_equal(look().cpu, "ARM, implementer 0x61, part 0x022");
    put_file("/proc/cpuinfo", "CPU implementer\t: 0x61\n");
    assert_string_equal(look().cpu, "");
}

/* The tightest limit counts, wherever it is; what files take up is given back when needed. */
static void machine_second_cgroups_limit(void **unused) {
    (void)unused;
    put_memory();
    put_file("/proc/self/cgroup", "0::/outer/inner\n");
    put_file("/sys/fs/cgroup/outer/memory.max", "8192000\n");
    put_file("/sys/fs/cgroup/outer/memory.current", "3000000\n");
    put_file("/sys/fs/cgroup/outer/memory.stat", "anon 1000000\nfile 2000000\nfile_mapped 5\n");
    put_file("/sys/fs/cgroup/outer/inner/memory.max", "8000000\n");
    put_file("/sys/fs/cgroup/outer/inner/memory.current", "500000\n");
    put_file("/sys/fs/cgroup/outer/cpu.max", "150000 100000\n");
    put_file("/sys/fs/cgroup/outer/inner/cpu.max", "400000 100000\n");
    pali_machine m = look();
    assert_int_equal(m.limit, 8000000);
    assert_int_equal(m.available, 8192000 - 1000000);
    assert_true(m.quota == 1.5);
}

/* A container sees its own group as the root. */
static void machine_container_root_limits(void **unused) {
    (void)unused;
    put_memory();
    put_file("/proc/self/cgroup", "0::/\n");
    put_file("/sys/fs/cgroup/memory.max", "1000000\n");
    put_file("/sys/fs/cgroup/cpu.max", "50000 100000\n");
    pali_machine m = look();
    assert_int_equal(m.limit, 1000000);
    assert_int_equal(m.available, 1000000);
    assert_true(m.quota == 0.5);
}

static void machine_first_cgroups_limit(void **unused) {
    (void)unused;
    put_memory();
    put_file("/proc/self/cgroup", "12:cpu,cpuacct:/job\n3:memory:/job\n0::/\n");
    put_file("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "4000000\n");
    put_file("/sys/fs/cgroup/memory/job/memory.usage_in_bytes", "3500000\n");
    put_file("/sys/fs/cgroup/memory/job/memory.stat", "cache 1\ntotal_cache 500000\n");
    put_file("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put_file("/sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "-1\n");
    put_file("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n");
    put_file("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    pali_machine m = look();
    assert_int_equal(m.limit, 4000000);
    assert_int_equal(m.available, 1000000);
    assert_true(m.quota == 2);
}

static void machine_nonsense_is_no_limit(void **unused) {
    (void)unused;
    put_memory();
    put_file("/proc/self/cgroup", ":::::\n0:\n\n0::/../../..\n5:memory\n");
    put_file("/sys/fs/cgroup/memory.max", "99999999999999999999999999\n");
    put_file("/sys/fs/cgroup/cpu.max", "5\n");
    pali_machine m = look();
    assert_int_equal(m.available, 9000 * 1024);
    assert_true(m.limit == 0 && m.quota == 0);
}

static void machine_cards_are_counted(void **unused) {
    (void)unused;
    put_file("/sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n");
    put_file("/sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n");
    put_file("/sys/bus/pci/devices/0000:01:00.1/vendor", "0x10de\n"); /* its sound */
    put_file("/sys/bus/pci/devices/0000:01:00.1/class", "0x040300\n");
    put_file("/sys/bus/pci/devices/0000:02:00.0/vendor", "0x8086\n");
    put_file("/sys/bus/pci/devices/0000:02:00.0/class", "0x030000\n");
    assert_int_equal(pali_machine_nvidia_cards(root), 1);
    put_file("/proc/driver/nvidia/version",
             "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 UTC 2025\n");
    put_file("/proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: some\n");
    put_file("/proc/driver/nvidia/gpus/0000:03:00.0/information", "Model: some\n");
    pali_machine m = look();
    assert_int_equal(m.nvidia_cards, 2);
    assert_string_equal(m.nvidia_driver, "580.65.06");
}

static void machine_this_one(void **unused) {
    (void)unused;
    pali_machine m;
    pali_machine_look("", &m);
    assert_true(m.cores >= 1 && m.memory > 0 && m.available <= m.memory);
}

static void expect_cores(const char *allowed, int n, const int *want) {
    cpu_set_t set;
    int cpu[16];
    CPU_ZERO(&set);
    for (const char *c = allowed; *c; c++)
        CPU_SET((size_t)(*c - '0'), &set);
    assert_int_equal(pali_cpus_of_cores(root, &set, cpu, 16), n);
    assert_memory_equal(cpu, want, (size_t)n * sizeof *want);
}

static void list_siblings(int cpu, const char *list) {
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    put_file(path, list);
}

static void cpus_are_one_a_core(void **unused) {
    (void)unused;
    expect_cores("0123", 4, (int[]){0, 1, 2, 3}); /* the system says nothing */
    for (int c = 0; c < 2; c++) { /* two cores of two threads, numbered as Intel's and AMD's */
        list_siblings(c, c ? "1,3\n" : "0,2\n");
        list_siblings(c + 2, c ? "1,3\n" : "0,2\n");
    }
    expect_cores("0123", 2, (int[]){0, 1});
    expect_cores("23", 2, (int[]){2, 3}); /* what may not be used does not count */
    expect_cores("13", 1, (int[]){1});
    list_siblings(0, "0-1\n"); /* and as others number them */
    list_siblings(1, "0-1\n");
    list_siblings(2, "2-3\n");
    list_siblings(3, "2-3\n");
    expect_cores("0123", 2, (int[]){0, 2});
    list_siblings(0, "nonsense");
    list_siblings(1, "");
    list_siblings(2, "-5-99999999999999999999,,");
    list_siblings(3, "3\n");
    expect_cores("013", 3, (int[]){0, 1, 3});
}

static void cpus_keep_a_quota(void **unused) {
    (void)unused;
    assert_int_equal(pali_cpus_under_quota(8, 0), 8);
    assert_int_equal(pali_cpus_under_quota(8, 2), 2);
    assert_int_equal(pali_cpus_under_quota(8, 2.5), 3);
    assert_int_equal(pali_cpus_under_quota(8, 0.1), 1);
    assert_int_equal(pali_cpus_under_quota(2, 64), 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        TEST(machine_nothing_readable_is_zero),
        TEST(machine_plain_one_has_no_limits),
        TEST(machine_arm_is_told_by_numbers),
        TEST(machine_second_cgroups_limit),
        TEST(machine_container_root_limits),
        TEST(machine_first_cgroups_limit),
        TEST(machine_nonsense_is_no_limit),
        TEST(machine_cards_are_counted),
        TEST(machine_this_one),
        TEST(cpus_are_one_a_core),
        TEST(cpus_keep_a_quota),
    };
    return cmocka_run_group_tests_name("machine", tests, NULL, NULL);
}
