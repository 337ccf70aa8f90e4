/* A model folder as tensors by meaning, and every way in which one can be broken. */
#include "core/weights.h"

#include "tests/core/make_model.h"

static void weights_open_tiny(void **state) {
    (void)state;
    for (int gemma = 1; gemma <= 2; gemma++) {
        char dir[64];
        model_folder(dir);
        model_plan *p = model_tiny(gemma);
        model_write(p, dir);
        pali_weights *w;
        pali_error err = {0};
        assert_ok(pali_weights_open(dir, &w, &err), err);
        pali_weights_close(w);
        model_remove(dir);
        free(p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_open_tiny),
    };
    return cmocka_run_group_tests_name("weights", tests, NULL, NULL);
}
