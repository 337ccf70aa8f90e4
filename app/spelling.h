/* spelling.h - which word somebody meant who mistyped it. */
#ifndef APP_SPELLING_H
#define APP_SPELLING_H

/* Letters to change, add or leave out to make b of a; anything above 2 is far. */
int app_spelling_distance(const char *a, const char *b);

#endif
