/* doctor.h - `pali doctor`: what this machine has, what pali would use of it, and why. */
#ifndef APP_DOCTOR_H
#define APP_DOCTOR_H

#include "app/options.h"

/* Text for a person, or one JSON object with --json, on standard output. With a model also
 * what it needs in each precision and where that fits. Nothing large is read or taken. */
int app_doctor_run(const app_options *o, pali_error *err);

#endif
