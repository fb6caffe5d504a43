/* Give scan.c the blocks of a file, under the address and undefined-behaviour sanitizers: BLOCKS holds, one after the
 * other, the length of a block in eight bytes and the block. Prints how many were taken. */
#include <stdio.h>

#include "scan.c"

static void *room_for(size_t rows, size_t size)
{
    void *room = malloc(rows * size); /* exactly: one row more is an error */
    if (!room)
        exit(3);
    return room;
}

int main(int argc, char **argv)
{
    static const char *const integers[] = {"\"correlation\"", "\"External id\"", "\"device\"", "\"stream\"",
        "\"Sequence number\"", "\"Fwd thread id\"", "\"Python id\"", "\"Python parent id\"", "\"bytes\"",
        "\"Collective name\""};
    enum { INTEGERS = sizeof integers / sizeof *integers };
    FILE *blocks = argc > 1 ? fopen(argv[1], "rb") : NULL;
    struct scanner *s = scan_new(INTEGERS, 1);
    uint64_t n, taken_blocks = 0;
    if (!blocks || !s)
        return 3;
    s->phases['X'] = SPAN, s->phases['s'] = s->phases['f'] = FLOW, s->phases['M'] = ASIDE;
    s->phases['i'] = s->phases['C'] = s->phases['t'] = COUNTED;
    for (int i = 0; i < INTEGERS; i++)
        scan_want(s, integers[i], strlen(integers[i]), i == INTEGERS - 1 ? FLAG : NULLS | TEXTS, (unsigned)i);
    scan_want(s, "\"name\"", 6, ONLY_TEXT, 0);
    scan_want(s, "\"external id\"", 13, OLDER, 1);
    scan_arrow(s, "\"ac2g\"", 6, LAUNCH), scan_arrow(s, "\"fwdbwd\"", 8, OTHER_ARROWS);
    scan_want(s, "\"Input Dims\"", 12, AS_WRITTEN, 0);
    while (fread(&n, sizeof n, 1, blocks) == 1) {
        uint8_t *text = room_for(n + 1, 1);
        if (fread(text, 1, n, blocks) != n)
            return 3;
        text[n] = 0;
        for (int exact = 0; exact < 2; exact++) {
            void **column = s->columns;
            size_t rows = n / 26 + 2;
            *column++ = room_for(rows, 8), *column++ = room_for(rows, 8);
            for (int i = 0; i < 3; i++)
                *column++ = room_for(rows, 4);
            for (int i = 0; i < INTEGERS; i++)
                *column++ = room_for(rows, 8);
            *column++ = room_for(rows, 4);
            taken_blocks += scan_block(s, text, n, exact, 0) == TAKEN;
            s->rows = 0;
            memset(s->filled, 0, sizeof s->filled);
            while (column > s->columns)
                free(*--column);
        }
        free(text);
    }
    fclose(blocks);
    scan_free(s);
    printf("%llu\n", (unsigned long long)taken_blocks);
    return 0;
}
