/* Texts become codes: the first one is 0, each new one the next number. A text may be any bytes, numbers too. */
#pragma once

#include "json.h"

struct entry {
    uint32_t hash, length;
    size_t start;
};

struct table {
    struct list arena, entries; /* the texts, one after the other; struct entry */
    uint32_t *slots;            /* code + 1; 0 is free; never more than half of them are in use */
    uint32_t count, most;
};

enum { MOST_PROBES = 1000 }; /* some 20 at worst, unless somebody chose texts that are alike to the hash */

INLINE uint64_t mixed(uint64_t h, uint64_t word)
{
    h = (h ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    return h ^ h >> 29;
}

static uint32_t hash(struct text t)
{
    uint64_t h = t.length, rest = 0;
    for (size_t i = 8; i <= t.length; i += 8)
        h = mixed(h, load8(t.start + i - 8));
    if (t.length >= 8)
        rest = load8(t.start + t.length - 8); /* overlaps, so that nothing outside the text is read */
    else
        for (size_t i = 0; i < t.length; i++)
            rest = rest << 8 | t.start[i];
    return (uint32_t)(mixed(h, rest) >> 16);
}

static bool grow(struct table *t)
{
    uint32_t most = t->most ? t->most * 2 : 512, mask = most * 2 - 1;
    uint32_t *slots = calloc((size_t)most * 2, sizeof *slots);
    if (!slots)
        return false;
    for (uint32_t code = 0; code < t->count; code++) {
        uint32_t slot = ((struct entry *)t->entries.items)[code].hash & mask;
        while (slots[slot])
            slot = (slot + 1) & mask;
        slots[slot] = code + 1;
    }
    free(t->slots);
    t->slots = slots, t->most = most;
    return true;
}

/* The code of a text, which is the next one when it is new; -1 without memory. after: what is kept behind it, or 0. */
static int32_t coded(struct table *t, struct text text, char after)
{
    if (t->count == t->most && !grow(t))
        return -1;
    uint32_t mask = t->most * 2 - 1, h = hash(text), slot = h & mask;
    for (int probes = 0; t->slots[slot]; slot = (slot + 1) & mask) {
        const struct entry *e = (struct entry *)t->entries.items + t->slots[slot] - 1;
        if (e->hash == h && e->length == text.length && !memcmp(t->arena.items + e->start, text.start, text.length))
            return (int32_t)(t->slots[slot] - 1);
        if (++probes > MOST_PROBES)
            return -1;
    }
    struct entry *entry = added(&t->entries, sizeof *entry);
    uint8_t *copy = entry ? added(&t->arena, text.length + (after != 0)) : NULL;
    if (!copy) {
        t->entries.used = t->count * sizeof *entry;
        return -1;
    }
    memcpy(copy, text.start, text.length);
    if (after)
        copy[text.length] = (uint8_t)after;
    *entry = (struct entry){h, (uint32_t)text.length, (size_t)(copy - t->arena.items)};
    t->slots[slot] = ++t->count;
    return (int32_t)t->count - 1;
}

/* Forget the codes from `count` on. Newest first: nothing has probed past the newest, so its slot may just be freed. */
static void forget(struct table *t, uint32_t count)
{
    for (; t->count > count; t->count--) {
        t->entries.used -= sizeof(struct entry);
        const struct entry *newest = (struct entry *)(t->entries.items + t->entries.used);
        uint32_t mask = t->most * 2 - 1, slot = newest->hash & mask;
        while (t->slots[slot] != t->count)
            slot = (slot + 1) & mask;
        t->slots[slot] = 0;
        t->arena.used = newest->start;
    }
}
