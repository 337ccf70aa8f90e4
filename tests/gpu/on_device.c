/* on_device.c - tests/emu/control.h where there is no emulator: the same test programs,
 * linked with nvcc's objects, run on a device. Orders change nothing there, so that a test
 * which compares them shows that results repeat; what cannot be arranged is skipped by the
 * tests that ask emu_present. */
#include "tests/emu/control.h"

int emu_present(void) {
    return 0;
}
void emu_reset(void) {
}
emu_device *emu_settings(void) {
    static emu_device device;
    return &device;
}
void emu_set_order(emu_order order, unsigned seed) {
    (void)order;
    (void)seed;
}
void emu_fail(const char *function, int nth, int error, int sticky) {
    (void)function;
    (void)nth;
    (void)error;
    (void)sticky;
}
long emu_calls(void) {
    return 0;
}
long emu_launches(void) {
    return 0;
}
size_t emu_allocated(void) {
    return 0;
}
long emu_made(void) {
    return 0;
}
int emu_live_objects(void) {
    return 0;
}
