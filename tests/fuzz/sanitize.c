/* Give scan.c the blocks of a file, under the address and undefined-behaviour sanitizers: BLOCKS holds, one after the
 * other, the length of a block in eight bytes and the block. Prints how many were taken, whole and
 * mended, and a digest of all that was
 * made of them, which must be the same on every processor. */
#include <stddef.h>
#include <stdio.h>

#include "scan.c"

static void *room_for(size_t rows, size_t size)
{
    void *room = malloc(rows * size); /* exactly: one row more is an error */
    if (!room)
        exit(3);
    return room;
}

static void digest(uint64_t *sum, const void *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        *sum = (*sum ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001B3);
}

/* Free a column, once its rows are in the digest. */
static void spent(uint64_t *sum, void *column, size_t bytes)
{
    digest(sum, column, bytes);
    free(column);
}

static struct wanted wanted(const char *key, uint8_t kind, uint8_t column)
{
    struct wanted w = {(uint8_t)(strlen(key) + 2), kind, column, "\""};
    memcpy(w.key + 1, key, strlen(key));
    w.key[w.length - 1] = '"';
    return w;
}

enum { INTEGERS = 10 };

static struct scanner *scanner(void)
{
    static const char *const integers[INTEGERS] = {"correlation", "External id", "device", "stream", "Sequence number",
        "Fwd thread id", "Python id", "Python parent id", "bytes", "Collective name"};
    struct scanner *s = scan_new();
    if (!s)
        exit(3);
    s->phases['X'] = SPAN, s->phases['s'] = s->phases['f'] = FLOW, s->phases['M'] = ASIDE;
    s->phases['B'] = s->phases['E'] = s->phases[0] = ASIDE, s->phases[OTHER] = COUNTED;
    s->phases['i'] = s->phases['C'] = s->phases['t'] = COUNTED;
    for (uint8_t i = 0; i < INTEGERS; i++)
        s->wanted[s->wants++] = wanted(integers[i], i == INTEGERS - 1 ? FLAG : NULLS | TEXTS, i);
    s->wanted[s->wants++] = wanted("name", ONLY_TEXT, 0);
    s->wanted[s->wants++] = wanted("Input Dims", AS_WRITTEN, 0);
    s->wanted[s->wants++] = wanted("Input dims", AS_WRITTEN | OLDER, 0);
    s->arrows[s->flows++] = wanted("ac2g", LAUNCH, 0), s->arrows[s->flows++] = wanted("fwdbwd", OTHER_ARROWS, 0);
    s->integers = INTEGERS, s->texts = 1;
    return s;
}

static void make_room(struct scanner *s, size_t rows)
{
    s->start = room_for(rows, 8), s->duration = room_for(rows, 8);
    s->name = room_for(rows, 4), s->category = room_for(rows, 4), s->thread = room_for(rows, 4);
    for (int i = 0; i < INTEGERS; i++)
        s->integer[i] = room_for(rows, 8);
    s->text[0] = room_for(rows, 4);
}

/* Free the columns, once their rows are in the digest. */
static void spend(struct scanner *s, uint64_t *sum)
{
    size_t made = (size_t)s->rows;
    spent(sum, s->start, made * 8), spent(sum, s->duration, made * 8), spent(sum, s->name, made * 4);
    spent(sum, s->category, made * 4), spent(sum, s->thread, made * 4), spent(sum, s->text[0], made * 4);
    for (int i = 0; i < INTEGERS; i++)
        spent(sum, s->integer[i], s->filled[i] ? made * 8 : 0);
}

int main(int argc, char **argv)
{
    FILE *blocks = argc > 1 ? fopen(argv[1], "rb") : NULL;
    struct scanner *s = scanner();
    uint64_t n, taken_blocks = 0, mended = 0, sum = 0;
    if (!blocks)
        return 3;
    while (fread(&n, sizeof n, 1, blocks) == 1) {
        uint8_t *text = room_for(n + 1, 1);
        if (fread(text, 1, n, blocks) != n)
            return 3;
        text[n] = 0;
        for (int way = 0; way < 4 && n; way++) {
            make_room(s, n / 26 + 2);
            s->large = way & 1;
            if (way < 2)
                taken_blocks += scan_block(s, text, n, false);
            else
                mended += scan_mend(s, text + 1, n - 1) > 0;
            for (size_t i = 0; i < s->repairs.used; i += sizeof(struct repair)) {
                const struct repair *repair = (const struct repair *)(s->repairs.items + i);
                digest(&sum, (const uint8_t *)(intptr_t)repair->text, (size_t)repair->length);
            }
            digest(&sum, s->aside.items, s->aside.used);
            spend(s, &sum);
            digest(&sum, s->launched.items, s->launched.used);
            for (size_t i = 0; i < s->links.used; i += sizeof(struct link))
                digest(&sum, s->links.items + i, offsetof(struct link, pid));
            s->rows = 0, s->launched.used = s->links.used = 0;
            memset(s->filled, 0, sizeof s->filled);
        }
        free(text);
    }
    fclose(blocks);
    for (int i = 0; i <= TABLES; i++)
        digest(&sum, s->tables[i].arena.items, s->tables[i].arena.used);
    scan_free(s);
    printf("%llu %llu %016llx\n", (unsigned long long)taken_blocks, (unsigned long long)mended, (unsigned long long)sum);
    return 0;
}
