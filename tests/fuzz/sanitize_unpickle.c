/* Give unpickle.c the pickles of a file, under the address and undefined-behaviour sanitizers: PICKLES holds, one after
 * the other, the length of a pickle in eight bytes and the pickle. Prints how many were counted, and read. */
#include <stdio.h>

#include "unpickle.c"

static void *room_for(int64_t rows, size_t size)
{
    void *room = malloc((size_t)rows * size); /* exactly: one row more is an error */
    if (!room)
        exit(3);
    return room;
}

int main(int argc, char **argv)
{
    /* the bytes of an item of each column, in the order of `struct reader`, and where a table begins */
    static const uint8_t sizes[] = {4, 4, 4, 4, 4, 4, 4, 8, 8, 8, 8, 0, 8, 8, 8, 8, 4, 4, 1, 8, 8, 8, 0, 8, 8, 8, 8, 4, 4, 0, 1, 8, 4, 8};
    FILE *pickles = argc > 1 ? fopen(argv[1], "rb") : NULL;
    uint64_t n, counted = 0, filled = 0;
    if (!pickles)
        return 3;
    while (fread(&n, sizeof n, 1, pickles) == 1) {
        uint8_t *text = room_for((int64_t)n + 1, 1);
        if (fread(text, 1, n, pickles) != n)
            return 3;
        text[n] = 0;
        for (size_t most = (size_t)1 << 28; most > 1 << 12; most >>= 12) { /* enough, then too little */
            struct reader *r = unpickle_new(most);
            if (unpickle_read(r, text, n)) {
                void **column = (void **)r, **first = column;
                const int64_t *rows = &r->events;
                for (size_t i = 0; i < sizeof sizes; i++)
                    if (sizes[i])
                        *column++ = room_for(*rows, sizes[i]);
                    else
                        rows++;
                counted++;
                filled += unpickle_fill(r);
                while (first < column)
                    free(*first++);
            }
            unpickle_free(r);
        }
        free(text);
    }
    fclose(pickles);
    printf("%llu %llu\n", (unsigned long long)counted, (unsigned long long)filled);
    return 0;
}
