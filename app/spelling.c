/* spelling.c - see spelling.h. */
#include "app/spelling.h"

#include <string.h>

int app_spelling_distance(const char *a, const char *b) {
    int row[32], n = (int)strlen(b);
    if (n >= 32 || strlen(a) >= 32)
        return 32;
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int corner = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int change = corner + (a[i - 1] != b[j - 1]),
                other = row[j] < row[j - 1] ? row[j] : row[j - 1];
            corner = row[j];
            row[j] = change < other + 1 ? change : other + 1;
        }
    }
    return row[n];
}
