/* The native reader of chrome traces: a JSON list of events in, columns out.
 *
 * It takes a whole block or none of it. Everything in a block it takes is strict JSON, of the types that PyTorch's
 * profiler writes; at the first byte it has doubts about (an odd type, an escaped key, an exponent in a time, text that
 * is no UTF-8) it forgets the block, and the caller gives it to the decoder (decode.py), which is the reference. So it
 * may refuse what the decoder takes, which costs time, but never take what the decoder would refuse or read otherwise.
 *
 * The text must be followed by a NUL byte, as the contents of Python's bytes and bytearrays are. No loop below passes a
 * NUL, so each ends by itself and need not compare with the end of the text for every byte.
 *
 * __init__.py drives it through ctypes, without Python's lock.
 */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "ending() finds the first of eight bytes in the low bits of a word"
#endif
#ifndef SOURCE
#define SOURCE ""
#endif

#define MISSING INT64_MIN
#define LAST_NS (UINT64_C(1) << 62)        /* leaves room for start + duration in 64 bits */
#define FLOAT_EXACT_US (UINT64_C(1) << 43) /* beyond it a float no longer tells three decimals apart */
#define INLINE static inline __attribute__((always_inline))

typedef const uint8_t *at; /* a place in the text; NULL: not for us */

struct text { /* a JSON value as written, a string with its quotes */
    at start;
    size_t length;
};

enum verdict { TAKEN, LEFT, LARGE, NO_MEMORY }; /* LARGE: left for a start that a float has no room for */
enum phase { UNKNOWN, COUNTED, SPAN, FLOW, ASIDE };
/* What an argument may be beside an integer; or what it is instead: a text nobody wants, any value, a text of which only
 * matters that it is there. OLDER: counts where its newer key is missing. */
enum kind { NULLS = 1, TEXTS = 2, ONLY_TEXT = 4, AS_WRITTEN = 8, FLAG = 16, OLDER = 32 };
enum arrow { NO_ARROW, LAUNCH, OTHER_ARROWS }; /* of launches only the ids of their starts are kept */
enum { START, DURATION, NAME, CATEGORY, THREAD, PLAIN };           /* columns; the integers follow, then the texts */
enum { NAMES, CATEGORIES, THREADS, TABLES };                       /* the tables of the texts follow */
enum { MOST_INTEGERS = 16, MOST_TEXTS = 48, MOST_WANTED = 72, MOST_ARROWS = 16, LONGEST_KEY = 63 };

/* ---- texts become codes -------------------------------------------------------------------------------------- */

struct entry {
    uint32_t hash, length;
    size_t start;
};

/* The arena is itself the inside of a JSON list ("a","b",): the caller decodes all texts in one call. */
struct table {
    uint8_t *arena;
    size_t used, room;
    struct entry *entries;
    uint32_t *slots; /* code + 1; 0 is free */
    uint32_t count, most;
};

INLINE uint64_t load8(at p)
{
    uint64_t word;
    memcpy(&word, p, 8); /* compiles to one load, aligned or not */
    return word;
}

static uint32_t hash(struct text t)
{
    uint64_t h = t.length, word = 0;
    for (size_t i = 0;; i += 8) {
        if (i + 8 <= t.length)
            word = load8(t.start + i);
        else if (t.length >= 8)
            word = load8(t.start + t.length - 8); /* overlaps, so that nothing outside the text is read */
        else
            for (size_t j = 0; j < t.length; j++)
                word = word << 8 | t.start[j];
        h = (h ^ word) * UINT64_C(0x9E3779B97F4A7C15);
        h ^= h >> 29;
        if (i + 8 >= t.length)
            return (uint32_t)(h ^ h >> 32);
    }
}

static bool grow(struct table *t)
{
    uint32_t most = t->most ? t->most * 2 : 512;
    struct entry *entries = realloc(t->entries, most * sizeof *entries);
    t->entries = entries ? entries : t->entries;
    uint32_t *slots = calloc((size_t)most * 2, sizeof *slots); /* never more than half full */
    if (!entries || !slots)
        return free(slots), false;
    free(t->slots);
    t->slots = slots, t->most = most;
    for (uint32_t code = 0; code < t->count; code++) {
        uint32_t slot = entries[code].hash & (most * 2 - 1);
        while (slots[slot])
            slot = (slot + 1) & (most * 2 - 1);
        slots[slot] = code + 1;
    }
    return true;
}

/* The code of a text, which is the next one when it is new; -1 without memory. */
static int32_t coded(struct table *t, struct text text)
{
    if (t->count == t->most && !grow(t))
        return -1;
    uint32_t mask = t->most * 2 - 1, h = hash(text), slot = h & mask;
    for (; t->slots[slot]; slot = (slot + 1) & mask) {
        const struct entry *e = &t->entries[t->slots[slot] - 1];
        if (e->hash == h && e->length == text.length && !memcmp(t->arena + e->start, text.start, text.length))
            return (int32_t)(t->slots[slot] - 1);
    }
    if (t->room - t->used <= text.length) {
        size_t room = (t->room + text.length) * 2 + 4096;
        uint8_t *arena = realloc(t->arena, room);
        if (!arena)
            return -1;
        t->arena = arena, t->room = room;
    }
    memcpy(t->arena + t->used, text.start, text.length);
    t->arena[t->used + text.length] = ',';
    t->entries[t->count] = (struct entry){h, (uint32_t)text.length, t->used};
    t->used += text.length + 1;
    t->slots[slot] = ++t->count;
    return (int32_t)t->count - 1;
}

/* Forget the codes from `count` on. Newest first: nothing has probed past the newest, so its slot may just be freed. */
static void forget(struct table *t, uint32_t count)
{
    while (t->count > count) {
        uint32_t mask = t->most * 2 - 1, slot = t->entries[t->count - 1].hash & mask;
        while (t->slots[slot] != t->count)
            slot = (slot + 1) & mask;
        t->slots[slot] = 0;
        t->used = t->entries[--t->count].start;
    }
}

/* ---- JSON ---------------------------------------------------------------------------------------------------- */

INLINE at space(at p)
{
    while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')
        p++;
    return p;
}

INLINE unsigned digit(at p) { return *p - (unsigned)'0'; } /* above 9: it is none */

/* The high bit of each byte that is a quote, a backslash or below 0x20: eight bytes at once without SIMD extensions
 * (Mycroft's trick). Exact for the lowest such byte, and only that one is used. */
INLINE uint64_t special(uint64_t w)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7;
    uint64_t quote = w ^ (ones * '"'), back = w ^ (ones * '\\');
    return (((quote - ones) & ~quote) | ((back - ones) & ~back) | ((w - ones * 0x20) & ~w)) & high;
}

static int hex4(at p)
{
    int value = 0;
    for (int i = 0; i < 4; i++) {
        unsigned d = digit(p + i);
        d = d <= 9 ? d : (p[i] | 32u) - 'a' <= 5 ? (p[i] | 32u) - 'a' + 10 : 16;
        if (d > 15)
            return -1;
        value = value << 4 | (int)d;
    }
    return value;
}

/* Past the escape whose backslash is at p; half of a surrogate pair is none. */
static at escape(at p)
{
    if (p[1] != 'u')
        return p[1] && strchr("\"\\/bfnrt", p[1]) ? p + 2 : NULL;
    int unit = hex4(p + 2);
    if (unit < 0xD800 || unit > 0xDFFF)
        return unit < 0 ? NULL : p + 6;
    int second = unit < 0xDC00 && p[6] == '\\' && p[7] == 'u' ? hex4(p + 8) : -1;
    return second >= 0xDC00 && second <= 0xDFFF ? p + 12 : NULL;
}

/* Past the quote that ends the string whose quote is at p. *seen gets bits that are high if it holds more than ASCII,
 * and bit 0 if it holds an escape. */
INLINE at ending(at p, at end, uint64_t *seen)
{
    *seen = 0;
    if (*p++ != '"')
        return NULL;
    for (;;) {
        for (; end - p >= 8; p += 8) {
            uint64_t word = load8(p), found = special(word);
            *seen |= word & UINT64_C(0x8080808080808080);
            if (found) {
                p += __builtin_ctzll(found) >> 3;
                break;
            }
        }
        while (*p >= 0x20 && *p != '"' && *p != '\\')
            *seen |= *p++ & 0x80;
        if (*p == '"')
            return p + 1;
        *seen |= 1;
        if (*p != '\\' || !(p = escape(p)))
            return NULL;
    }
}

static bool is_utf8(at p, at end)
{
    while (p < end) {
        uint8_t c = *p++;
        if (c < 0x80)
            continue;
        int more = c >= 0xC2 && c <= 0xDF ? 1 : (c & 0xF0) == 0xE0 ? 2 : c >= 0xF0 && c <= 0xF4 ? 3 : 0;
        uint32_t point = c & (0x3Fu >> more);
        if (!more || end - p < more)
            return false;
        for (int i = 0; i < more; i++, p++) {
            if ((*p & 0xC0) != 0x80)
                return false;
            point = point << 6 | (*p & 0x3F);
        }
        if ((more == 2 && (point < 0x800 || (point >= 0xD800 && point <= 0xDFFF))) ||
            (more == 3 && (point < 0x10000 || point > 0x10FFFF)))
            return false;
    }
    return true;
}

/* A string that is kept, or that the decoder decodes: it must be UTF-8. */
INLINE at string(at p, at end, struct text *text)
{
    uint64_t seen;
    at after = ending(p, end, &seen);
    if (!after || (seen >> 1 && !is_utf8(p, after)))
        return NULL;
    *text = (struct text){p, (size_t)(after - p)};
    return after;
}

INLINE at word(at p)
{
    const char *text = *p == 't' ? "true" : *p == 'f' ? "false" : "null";
    return strncmp((const char *)p, text, strlen(text)) ? NULL : p + strlen(text);
}

/* A number nobody wants. One of very many digits or a large exponent may be out of the decoder's range. */
INLINE at number(at p)
{
    at first = p += *p == '-';
    while (digit(p) <= 9)
        p++;
    if (p == first || (*first == '0' && p - first > 1))
        return NULL;
    if (*p == '.') {
        at dot = p++;
        while (digit(p) <= 9)
            p++;
        if (p - dot < 2)
            return NULL;
    }
    if (p - first > 100)
        return NULL;
    if ((*p | 32) == 'e') {
        p += p[1] == '-' || p[1] == '+' ? 2 : 1;
        at exponent = p;
        while (digit(p) <= 9)
            p++;
        if (p == exponent || p - exponent > 2)
            return NULL;
    }
    return p;
}

/* Past a value nobody wants. */
static at skipped(at p, at end)
{
    uint64_t objects = 0, seen; /* a bit for each open bracket: 1 for { */
    int depth = 0;
    for (;;) {
        switch (*p) {
        case '"':
            p = ending(p, end, &seen);
            break;
        case '{': case '[':
            if (++depth > 60)
                return NULL;
            objects = objects << 1 | (*p == '{');
            p = space(p + 1);
            if (*p == (objects & 1 ? '}' : ']'))
                break; /* closed below */
            if (objects & 1)
                goto key;
            continue;
        case 't': case 'f': case 'n':
            p = word(p);
            break;
        default:
            p = number(p);
        }
        if (!p)
            return NULL;
        for (;;) { /* what follows a value */
            if (!depth)
                return p;
            p = space(p);
            if (*p == ',') {
                p = space(p + 1);
                break;
            }
            if (*p != (objects & 1 ? '}' : ']'))
                return NULL;
            p++, depth--, objects >>= 1;
        }
        if (!(objects & 1))
            continue;
    key:
        if (!(p = ending(p, end, &seen)) || *(p = space(p)) != ':')
            return NULL;
        p = space(p + 1);
    }
}

/* ---- numbers ------------------------------------------------------------------------------------------------- */

/* An integer as args have it: 7, "7", "0x1f" (ROCm's streams), null; kind says which of these the decoder takes
 * without a second look. MISSING when it does not fit. */
INLINE at integer(at p, unsigned kind, int64_t *value)
{
    if (*p == 'n')
        return *value = MISSING, kind & NULLS ? word(p) : NULL;
    bool quoted = *p == '"';
    if (quoted && !(kind & TEXTS))
        return NULL;
    p += quoted;
    uint64_t v = 0;
    if (quoted && p[0] == '0' && p[1] == 'x') {
        at first = p += 2;
        for (unsigned d; (d = digit(p)) <= 9 || (d = (*p | 32u) - 'a') <= 5; p++)
            v = v << 4 | (digit(p) <= 9 ? d : d + 10);
        *value = (int64_t)v;
        return p == first || p - first > 15 || *p != '"' ? NULL : p + 1;
    }
    bool minus = *p == '-';
    at first = p += minus;
    for (unsigned d; (d = digit(p)) <= 9; p++)
        v = v * 10 + d;
    size_t digits = (size_t)(p - first);
    if (!digits || digits > 30 || (*first == '0' && digits > 1) || (quoted ? *p != '"' : *p == '.' || (*p | 32) == 'e'))
        return NULL;
    bool fits = digits <= 19 && v <= INT64_MAX; /* 19 digits fit 64 bits without a sign */
    *value = !fits ? MISSING : minus ? -(int64_t)v : (int64_t)v;
    return p + quoted;
}

struct decimal { /* value / 10^places */
    uint64_t value;
    unsigned places;
    bool minus, known;
};

static const uint64_t TEN[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000, 10000000000,
    100000000000, 1000000000000, 10000000000000, 100000000000000, 1000000000000000, 10000000000000000,
    100000000000000000, 1000000000000000000, UINT64_C(10000000000000000000)};

INLINE at decimal(at p, struct decimal *d)
{
    d->minus = *p == '-', d->known = true, d->places = 0;
    at first = p += d->minus;
    uint64_t v = 0;
    for (unsigned c; (c = digit(p)) <= 9; p++)
        v = v * 10 + c;
    size_t digits = (size_t)(p - first);
    if (!digits || (*first == '0' && digits > 1))
        return NULL;
    if (*p == '.') {
        at dot = ++p;
        for (unsigned c; (c = digit(p)) <= 9; p++)
            v = v * 10 + c;
        if (p == dot)
            return NULL;
        digits += (size_t)(p - dot), d->places = (unsigned)(p - dot);
    }
    d->value = v;
    return digits > 19 || (*p | 32) == 'e' ? NULL : p;
}

/* Microseconds to nanoseconds, where three decimals are enough: exact. */
INLINE bool whole_ns(const struct decimal *d, uint64_t *ns)
{
    return !__builtin_mul_overflow(d->value, TEN[3 - d->places], ns) && *ns < LAST_NS;
}

/* As decimal text: below a nanosecond half to even (column_builder.text_to_ns). */
static bool exact_ns(const struct decimal *d, int64_t *ns)
{
    uint64_t v;
    if (d->places <= 3) {
        if (!whole_ns(d, &v))
            return false;
    } else {
        uint64_t unit = TEN[d->places - 3], rest = d->value % unit;
        v = d->value / unit;
        v += rest > unit / 2 || (rest == unit / 2 && (v & 1));
    }
    *ns = d->minus ? -(int64_t)v : (int64_t)v;
    return true;
}

/* As a float (column_builder.to_ns): exact for three decimals, more are rounded twice. Not when a float has no room for
 * three decimals, and not when we cannot tell the nearest float. */
static bool float_ns(const struct decimal *d, int64_t *ns)
{
    uint64_t v;
    if (d->places <= 3) {
        *ns = 0;
        if (!whole_ns(d, &v) || v >= FLOAT_EXACT_US * 1000)
            return false;
        *ns = d->minus ? -(int64_t)v : (int64_t)v;
        return true;
    }
    if (d->value >> 53)
        return false;
    double us = (double)d->value / (double)TEN[d->places]; /* both exact, so the quotient is the nearest float */
    us = d->minus ? -us : us;
    double whole = floor(us);
    *ns = (int64_t)whole * 1000 + (int64_t)rint((us - whole) * 1000);
    return fabs(us) < (double)FLOAT_EXACT_US;
}

/* ---- one event ----------------------------------------------------------------------------------------------- */

struct event {
    uint8_t phase;
    bool id_known;
    struct text name, category, pid, tid;
    struct decimal start, duration;
    int64_t id;
};

struct list { /* of things of one size, which is a multiple of 8 */
    int64_t *items;
    size_t count, room;
};

struct link { /* an arrow's start or end; its thread is coded when the block is done, as the decoder's builder does */
    int64_t phase, arrow, id, thread, start_ns;
    struct text pid, tid;
};

struct wanted { /* a key of args, or the category of a flow; with its quotes */
    uint8_t length, kind, column;
    char key[LONGEST_KEY + 2];
};

struct scanner {
    /* What the caller sets and reads (native/__init__.py declares the same). columns: its arrays, with room for all
     * rows of a block; an integer column is not written until an event has that integer. */
    void *columns[PLAIN + MOST_INTEGERS + MOST_TEXTS];
    struct list launched, links, aside; /* ids of `ac2g` starts; struct link; where metadata begin and end in the block */
    int64_t rows, events;
    bool filled[MOST_INTEGERS];
    uint8_t phases[256];

    struct wanted wanted[MOST_WANTED], arrows[MOST_ARROWS];
    uint64_t lengths; /* a bit for each length of a wanted key */
    int wants, flows, integers, texts, external_id;
    struct table tables[TABLES + MOST_TEXTS];
    uint8_t thread[256]; /* `[pid,tid]` of the last event: mostly that of the next one too */
    size_t thread_length;
    int32_t thread_code;

    struct event e;
    int64_t values[MOST_INTEGERS], older; /* of the event's args */
    struct text written[MOST_TEXTS];
    bool has_args;
};

static void *added(struct list *list, size_t size)
{
    if (list->count == list->room) {
        size_t room = list->room * 2 + 256;
        void *items = realloc(list->items, room * size);
        if (!items)
            return NULL;
        list->items = items, list->room = room;
    }
    return (char *)list->items + size * list->count++;
}

INLINE bool same(struct text t, const char *literal, size_t n) { return t.length == n && !memcmp(t.start, literal, n); }
#define IS(text, literal) same(text, "\"" literal "\"", sizeof(literal) + 1)

/* Every member of the object at p, in any order, goes to `member`: a constant, so that each use is inlined. */
INLINE at object(struct scanner *s, at p, at end, at (*member)(struct scanner *, struct text, at, at))
{
    p = space(p + 1);
    if (*p == '}')
        return p + 1;
    for (;;) {
        uint64_t seen;
        at key = p;
        if (!(p = ending(p, end, &seen)) || seen & 1) /* a key with escapes may be one of ours */
            return NULL;
        struct text name = {key, (size_t)(p - key)};
        if (*(p = space(p)) != ':' || !(p = member(s, name, space(p + 1), end)))
            return NULL;
        p = space(p);
        if (*p == '}')
            return p + 1;
        if (*p != ',')
            return NULL;
        p = space(p + 1);
    }
}

INLINE void reset_args(struct scanner *s)
{
    for (int i = 0; i < s->integers; i++)
        s->values[i] = MISSING;
    s->older = MISSING;
    for (int i = 0; i < s->texts; i++)
        s->written[i].length = 0;
}

INLINE at in_args(struct scanner *s, struct text name, at p, at end)
{
    if (name.length > LONGEST_KEY || !(s->lengths >> name.length & 1))
        return skipped(p, end);
    for (const struct wanted *w = s->wanted; w < s->wanted + s->wants; w++) {
        if (!same(name, w->key, w->length))
            continue;
        struct text text;
        if (w->kind & (ONLY_TEXT | FLAG)) {
            if ((p = string(p, end, &text)) && w->kind & FLAG)
                s->values[w->column] = text.length > 2 ? 1 : MISSING;
            return p;
        }
        if (!(w->kind & AS_WRITTEN))
            return integer(p, w->kind, w->kind & OLDER ? &s->older : &s->values[w->column]);
        at after = skipped(p, end);
        if (!after || (w->kind & OLDER && s->written[w->column].length))
            return NULL;
        s->written[w->column] = (struct text){p, (size_t)(after - p)};
        return after;
    }
    return skipped(p, end);
}

/* A process or a thread: a string or an integer. */
INLINE at identity(at p, at end, struct text *text)
{
    int64_t value;
    if (*p == '"')
        return string(p, end, text);
    at after = integer(p, 0, &value);
    *text = (struct text){p, (size_t)(after - p)};
    return after;
}

INLINE at in_event(struct scanner *s, struct text name, at p, at end)
{
    struct event *e = &s->e;
    struct text text;
    if (IS(name, "ph")) {
        e->phase = p[0] == '"' && p[1] > ' ' && p[1] != '\\' && p[2] == '"' ? p[1] : 0;
        return e->phase ? p + 3 : NULL;
    }
    if (IS(name, "cat")) /* compared with others, so it must be as it is written */
        return (p = string(p, end, &e->category)) && !memchr(e->category.start, '\\', e->category.length) ? p : NULL;
    if (IS(name, "name"))
        return string(p, end, &e->name);
    if (IS(name, "pid"))
        return identity(p, end, &e->pid);
    if (IS(name, "tid"))
        return identity(p, end, &e->tid);
    if (IS(name, "ts"))
        return decimal(p, &e->start);
    if (IS(name, "dur"))
        return decimal(p, &e->duration);
    if (IS(name, "args")) {
        if (*p != '{')
            return NULL;
        if (s->has_args) /* the last of several counts */
            reset_args(s);
        s->has_args = true;
        return object(s, p, end, in_args);
    }
    if (IS(name, "id")) {
        at after = integer(p, TEXTS, &e->id);
        e->id_known = after != NULL; /* other text matters only in flows */
        return after ? after : string(p, end, &text);
    }
    return skipped(p, end);
}

/* ---- many events --------------------------------------------------------------------------------------------- */

INLINE int32_t thread_of(struct scanner *s, struct text pid, struct text tid)
{
    uint8_t key[sizeof s->thread];
    size_t comma = 1 + pid.length, n = comma + 1 + tid.length + 1;
    if (n > sizeof key)
        return -1;
    key[0] = '[', key[comma] = ',', key[n - 1] = ']';
    memcpy(key + 1, pid.start, pid.length);
    memcpy(key + comma + 1, tid.start, tid.length);
    if (n != s->thread_length || memcmp(key, s->thread, n)) {
        int32_t code = coded(&s->tables[THREADS], (struct text){key, n});
        if (code < 0)
            return code;
        memcpy(s->thread, key, n);
        s->thread_length = n, s->thread_code = code;
    }
    return s->thread_code;
}

static enum verdict span(struct scanner *s, bool exact)
{
    const struct event *e = &s->e;
    int64_t start, duration, row = s->rows;
    if (!e->start.known || !(exact ? exact_ns : float_ns)(&e->start, &start))
        return !exact && e->start.value / TEN[e->start.places] >= FLOAT_EXACT_US ? LARGE : LEFT;
    if (!e->duration.known || (e->duration.minus && e->duration.value) || !float_ns(&e->duration, &duration))
        return LEFT;
    int32_t thread = thread_of(s, e->pid, e->tid);
    if (thread < 0)
        return LEFT;
    int32_t name = coded(&s->tables[NAMES], e->name), category = coded(&s->tables[CATEGORIES], e->category);
    if (name < 0 || category < 0)
        return NO_MEMORY;
    ((int64_t *)s->columns[START])[row] = start;
    ((int64_t *)s->columns[DURATION])[row] = duration;
    ((int32_t *)s->columns[NAME])[row] = name;
    ((int32_t *)s->columns[CATEGORY])[row] = category;
    ((int32_t *)s->columns[THREAD])[row] = thread;
    if (s->older != MISSING && s->values[s->external_id] == MISSING && !IS(e->category, "user_annotation") &&
        !IS(e->category, "python_function")) /* these never had the older key */
        s->values[s->external_id] = s->older;
    for (int i = 0; i < s->integers; i++) {
        int64_t *column = s->columns[PLAIN + i];
        if (s->filled[i]) {
            column[row] = s->values[i];
        } else if (s->values[i] != MISSING) {
            for (int64_t before = 0; before < row; before++)
                column[before] = MISSING;
            column[row] = s->values[i], s->filled[i] = true;
        }
    }
    for (int i = 0; i < s->texts; i++) {
        int32_t code = s->written[i].length ? coded(&s->tables[TABLES + i], s->written[i]) : -1;
        if (s->written[i].length && code < 0)
            return NO_MEMORY;
        ((int32_t *)s->columns[PLAIN + s->integers + i])[row] = code + 1; /* 0: the event has no such argument */
    }
    s->rows++;
    return TAKEN;
}

static enum verdict flow(struct scanner *s, bool exact)
{
    const struct event *e = &s->e;
    int arrow = NO_ARROW;
    for (int i = 0; i < s->flows && !arrow; i++)
        if (same(e->category, s->arrows[i].key, s->arrows[i].length))
            arrow = s->arrows[i].kind;
    bool launch = arrow == LAUNCH;
    if (!arrow || (launch && e->phase != 's'))
        return TAKEN; /* counted */
    int64_t start;
    if (!e->id_known || !e->start.known || !(exact ? exact_ns : float_ns)(&e->start, &start))
        return LEFT;
    void *place = launch ? added(&s->launched, sizeof e->id) : added(&s->links, sizeof(struct link));
    if (!place)
        return NO_MEMORY;
    if (launch)
        memcpy(place, &e->id, sizeof e->id);
    else
        *(struct link *)place = (struct link){e->phase, arrow, e->id, -1, start, e->pid, e->tid};
    return TAKEN;
}

static enum verdict kept(struct scanner *s, size_t from, size_t until, bool exact)
{
    int64_t place[2] = {(int64_t)from, (int64_t)until};
    void *aside;
    switch (s->phases[s->e.phase]) {
    case SPAN:
        s->events++;
        return span(s, exact);
    case FLOW:
        s->events++;
        return flow(s, exact);
    case COUNTED:
        s->events++;
        return TAKEN;
    case ASIDE: /* names of threads: few, and only they have such args. The caller decodes and counts them. */
        if (!(aside = added(&s->aside, sizeof place)))
            return NO_MEMORY;
        memcpy(aside, place, sizeof place);
        return TAKEN;
    default:
        return LEFT;
    }
}

#define TEXT(literal) {(at)(literal), sizeof(literal) - 1}

static enum verdict taken(struct scanner *s, at text, at end, bool exact)
{
    static const struct event empty = {.name = TEXT("\"\""), .category = TEXT("\"\""), .pid = TEXT("null"),
        .tid = TEXT("null"), .id = MISSING, .id_known = true};
    at p = space(text);
    if (*p != '[')
        return LEFT;
    p = space(p + 1);
    for (bool first = true; *p != ']'; first = false) {
        if (!first) {
            if (*p != ',')
                return LEFT;
            p = space(p + 1);
        }
        if (p >= end || *p != '{')
            return LEFT;
        at from = p;
        s->e = empty, s->has_args = false;
        reset_args(s);
        if (!(p = object(s, p, end, in_event)))
            return LEFT;
        enum verdict verdict = kept(s, (size_t)(from - text), (size_t)(p - text), exact);
        if (verdict != TAKEN)
            return verdict;
        p = space(p);
    }
    return p < end && space(p + 1) >= end ? TAKEN : LEFT; /* more text may follow the block */
}

/* Take the n bytes of a JSON list of events, as many rows as there are at the end of the columns; or leave all as it
 * was. exact: times as decimal text, not as floats. only_look: leave all as it was in any case. */
int scan_block(struct scanner *s, const uint8_t *text, size_t n, int exact, int only_look)
{
    int64_t rows = s->rows, events = s->events;
    size_t launched = s->launched.count, links = s->links.count;
    uint32_t counts[TABLES + MOST_TEXTS];
    for (int i = 0; i < TABLES + s->texts; i++)
        counts[i] = s->tables[i].count;
    s->aside.count = 0;
    enum verdict verdict = taken(s, text, text + n, exact);
    for (int pass = 0; pass < 4; pass++) /* kind by kind, starts before ends */
        for (size_t i = links; verdict == TAKEN && i < s->links.count; i++) {
            struct link *link = (struct link *)s->links.items + i;
            if (link->arrow != OTHER_ARROWS + pass / 2 || link->phase != "sf"[pass % 2])
                continue;
            link->thread = thread_of(s, link->pid, link->tid);
            verdict = link->thread < 0 ? LEFT : TAKEN;
        }
    if (verdict != TAKEN || only_look) {
        s->rows = rows, s->events = events;
        s->launched.count = launched, s->links.count = links, s->aside.count = 0;
        for (int i = 0; i < TABLES + s->texts; i++)
            forget(&s->tables[i], counts[i]);
        s->thread_length = 0;
    }
    return verdict;
}

/* ---- what the caller sets and takes -------------------------------------------------------------------------- */

const char *scan_source(void) { return SOURCE; }

/* A scanner with so many columns of integers and of texts among the arguments. */
struct scanner *scan_new(int integers, int texts)
{
    struct scanner *s = integers <= MOST_INTEGERS && texts <= MOST_TEXTS ? calloc(1, sizeof *s) : NULL;
    if (s)
        s->integers = integers, s->texts = texts;
    return s;
}

void scan_free(struct scanner *s)
{
    for (struct table *t = s->tables; t < s->tables + TABLES + MOST_TEXTS; t++)
        free(t->arena), free(t->entries), free(t->slots);
    free(s->launched.items), free(s->links.items), free(s->aside.items);
    free(s);
}

/* Look for this key (with its quotes) in args, for that column of the integers or of the texts. */
int scan_want(struct scanner *s, const char *key, size_t n, unsigned kind, unsigned column)
{
    if (n > LONGEST_KEY || s->wants == MOST_WANTED)
        return LEFT;
    struct wanted *w = &s->wanted[s->wants++];
    w->length = (uint8_t)n, w->kind = (uint8_t)kind, w->column = (uint8_t)column;
    memcpy(w->key, key, n);
    s->lengths |= UINT64_C(1) << n;
    if (kind == OLDER)
        s->external_id = (int)column;
    return TAKEN;
}

/* Keep flows of this category (with its quotes) as arrows of that kind. */
int scan_arrow(struct scanner *s, const char *category, size_t n, unsigned kind)
{
    if (n > LONGEST_KEY || s->flows == MOST_ARROWS)
        return LEFT;
    struct wanted *w = &s->arrows[s->flows++];
    w->length = (uint8_t)n, w->kind = (uint8_t)kind;
    memcpy(w->key, category, n);
    return TAKEN;
}

/* The distinct texts of a table, as the inside of a JSON list with a comma at its end. */
const uint8_t *scan_texts(const struct scanner *s, int table, size_t *bytes)
{
    *bytes = s->tables[table].used;
    return s->tables[table].arena;
}
