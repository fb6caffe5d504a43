/* The native reader of chrome traces: a JSON list of events in, columns out.
 *
 * It takes a whole block or none of it. Everything in a block it takes is strict JSON, of the types that PyTorch's
 * profiler writes; at the first byte it has doubts about (an odd type, an escaped key, an exponent in a time, text that
 * is no UTF-8) it forgets the block, and the caller gives it to the decoder (decode.py), which is the reference. So it
 * may refuse what the decoder takes, which costs time, but never take what the decoder would refuse or read otherwise.
 * A lenient reader would have two thirds of these lines: the rest checks what is skipped (brackets, numbers, escapes,
 * UTF-8), forgets blocks without a trace, and gives codes in the decoder's order.
 *
 * The text must be followed by a NUL byte, as the contents of Python's bytes and bytearrays are. No loop below passes a
 * NUL, so each ends by itself and need not compare with the end of the text for every byte.
 *
 * __init__.py drives it through ctypes, without Python's lock: it sets and reads the first half of `struct scanner`.
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
#define LAST_NS (INT64_C(1) << 62)                 /* leaves room for start + duration in 64 bits */
#define FLOAT_EXACT_NS ((INT64_C(1) << 43) * 1000) /* from here on a float of microseconds has no three decimals */
#define INLINE static inline __attribute__((always_inline))

typedef const uint8_t *at; /* a place in the text; NULL: not for us */

struct text { /* a JSON value as written, a string with its quotes */
    at start;
    size_t length;
};

struct list { /* of anything, counted in bytes */
    uint8_t *items;
    size_t used, room;
};

struct entry {
    uint32_t hash, length;
    size_t start;
};

struct table {          /* texts become codes */
    struct list arena;  /* itself the inside of a JSON list ("a","b",): the caller decodes all texts in one call */
    struct list entries;
    uint32_t *slots;    /* code + 1; 0 is free; never more than half of them are in use */
    uint32_t count, most;
};

enum phase { UNKNOWN, COUNTED, SPAN, FLOW, ASIDE };
/* What an argument may be beside an integer; or what it is instead: a text nobody wants, any value, a text of which
 * only matters that it is there. OLDER: counts where its newer key is missing. */
enum kind { NULLS = 1, TEXTS = 2, ONLY_TEXT = 4, AS_WRITTEN = 8, FLAG = 16, OLDER = 32 };
enum arrow { NO_ARROW, LAUNCH, OTHER_ARROWS };  /* of launches only the ids of their starts are kept */
enum { NAMES, CATEGORIES, THREADS, TABLES };    /* the tables of the texts follow */
enum { MOST_INTEGERS = 16, MOST_TEXTS = 48, MOST_WANTED = 72, MOST_ARROWS = 16, LONGEST_KEY = 63 };
enum { DEEPEST = 60 }; /* brackets in a value nobody wants: the decoder has a limit too */

struct wanted { /* a key of args, or the category of a flow; with its quotes */
    uint8_t length, kind, column;
    uint8_t key[LONGEST_KEY];
};

struct link { /* an arrow's start or end; its thread is coded when the block is done, as the decoder's builder does */
    int64_t phase, arrow, id, thread, start_ns;
    struct text pid, tid;
};

struct number { /* value / 10^places, if it has no exponent and at most 19 digits; no digits: none is there */
    uint64_t value;
    uint32_t digits, places;
    bool minus, exponent;
};

struct event {
    uint8_t phase;
    bool id_known, has_args;
    struct text name, category, pid, tid;
    struct number start, duration;
    int64_t id;
};

struct scanner {
    /* Where the caller has room for all rows of a block. An integer column is not written until an event has that. */
    int64_t *start, *duration;
    int32_t *name, *category, *thread;
    int64_t *integer[MOST_INTEGERS];
    int32_t *text[MOST_TEXTS]; /* 0: the event has no such argument */
    bool filled[MOST_INTEGERS];
    /* What the caller asks for. */
    int64_t integers, texts, wants, flows;
    uint64_t lengths; /* a bit for each length of a wanted key */
    struct wanted wanted[MOST_WANTED], arrows[MOST_ARROWS];
    uint8_t phases[256];
    /* Beside columns: id and thread of `ac2g` starts; struct link; where metadata begin and end in the block. */
    struct list launched, links, aside;
    struct table tables[TABLES + MOST_TEXTS];
    int64_t rows, events;
    bool large; /* a time stamp was too large for a float: from now on more than three decimals are the decoder's */
    bool fine;  /* a block that it took had a time stamp with more than three decimals */

    /* The block, and the event at hand. */
    at text_start, end;
    bool rounded; /* a time stamp had more than three decimals */
    int depth;
    struct event e;
    int64_t values[MOST_INTEGERS]; /* of its args */
    struct text written[MOST_TEXTS];
    struct text pid, tid; /* of the last thread in this block, mostly that of the next event too */
    int32_t last_thread;

    struct list codes[TABLES + MOST_TEXTS]; /* of each text, in the scanner that it was joined to */
};

/* ---- texts become codes -------------------------------------------------------------------------------------- */

/* Room for so many more bytes. */
static void *added(struct list *list, size_t bytes)
{
    if (list->room - list->used < bytes) {
        size_t room = (list->room + bytes) * 2 + 4096;
        uint8_t *items = realloc(list->items, room);
        if (!items)
            return NULL;
        list->items = items, list->room = room;
    }
    list->used += bytes;
    return list->items + list->used - bytes;
}

INLINE uint64_t load8(at p)
{
    uint64_t word;
    memcpy(&word, p, 8); /* compiles to one load, aligned or not */
    return word;
}

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

/* The code of a text, which is the next one when it is new; -1 without memory. */
static int32_t coded(struct table *t, struct text text)
{
    if (t->count == t->most && !grow(t))
        return -1;
    uint32_t mask = t->most * 2 - 1, h = hash(text), slot = h & mask;
    for (; t->slots[slot]; slot = (slot + 1) & mask) {
        const struct entry *e = (struct entry *)t->entries.items + t->slots[slot] - 1;
        if (e->hash == h && e->length == text.length && !memcmp(t->arena.items + e->start, text.start, text.length))
            return (int32_t)(t->slots[slot] - 1);
    }
    struct entry *entry = added(&t->entries, sizeof *entry);
    uint8_t *copy = entry ? added(&t->arena, text.length + 1) : NULL;
    if (!copy) {
        t->entries.used = t->count * sizeof *entry;
        return -1;
    }
    memcpy(copy, text.start, text.length);
    copy[text.length] = ',';
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

/* ---- JSON ---------------------------------------------------------------------------------------------------- */

INLINE at space(at p)
{
    while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')
        p++;
    return p;
}

INLINE unsigned digit(at p) { return *p - (unsigned)'0'; } /* above 9: it is none */

INLINE unsigned hex_digit(at p) /* above 15: it is none */
{
    unsigned letter = (*p | 32u) - 'a';
    return digit(p) <= 9 ? digit(p) : letter <= 5 ? letter + 10 : 16;
}

/* The high bit of each byte that is a quote, a backslash or below 0x20: eight bytes at once without SIMD extensions
 * (Mycroft's trick). Exact for the lowest such byte, and only that one is used. */
INLINE uint64_t special(uint64_t w)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7;
    uint64_t quote = w ^ (ones * '"'), back = w ^ (ones * '\\');
    return (((quote - ones) & ~quote) | ((back - ones) & ~back) | ((w - ones * 0x20) & ~w)) & high;
}

/* Past the escape whose backslash is at p. Surrogates, of which only pairs mean something, are not for us. */
static at escape(at p)
{
    if (p[1] != 'u')
        return p[1] && strchr("\"\\/bfnrt", p[1]) ? p + 2 : NULL;
    for (int i = 2; i < 6; i++)
        if (hex_digit(p + i) > 15)
            return NULL;
    return (p[2] | 32) == 'd' && p[3] > '7' ? NULL : p + 6;
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

/* The text ends with a quote, at which every sequence that is cut off fails. */
static bool is_utf8(at p, at end)
{
    while (p < end) {
        uint8_t c = *p++;
        if (c < 0x80)
            continue;
        int more = c < 0xC2 || c > 0xF4 ? 0 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
        uint8_t least = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80, most = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
        if (!more || *p < least || *p > most)
            return false;
        for (p++; more > 1; more--)
            if ((*p++ & 0xC0) != 0x80)
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

/* One of very many digits or a large exponent may be out of the decoder's range: it is not for us. */
INLINE at number(at p, struct number *n)
{
    n->minus = *p == '-';
    at first = p += n->minus;
    uint64_t value = 0;
    for (unsigned d; (d = digit(p)) <= 9; p++)
        value = value * 10 + d;
    n->digits = (uint32_t)(p - first), n->places = 0;
    if (!n->digits || (*first == '0' && n->digits > 1))
        return NULL;
    if (*p == '.') {
        at dot = ++p;
        for (unsigned d; (d = digit(p)) <= 9; p++)
            value = value * 10 + d;
        if (p == dot)
            return NULL;
        n->places = (uint32_t)(p - dot), n->digits += n->places;
    }
    n->value = value;
    n->exponent = (*p | 32) == 'e';
    if (n->exponent) {
        at power = p += p[1] == '-' || p[1] == '+' ? 2 : 1;
        while (digit(p) <= 9)
            p++;
        if (p == power || p - power > 2)
            return NULL;
    }
    return n->digits > 100 ? NULL : p;
}

/* Every item between the brackets that open at p goes to `item`, a constant, so that each use is inlined. */
INLINE at items(struct scanner *s, at p, char close, at (*item)(struct scanner *, at))
{
    p = space(p + 1);
    if (*p == close)
        return p + 1;
    while ((p = item(s, p))) {
        p = space(p);
        if (*p == close)
            return p + 1;
        if (*p != ',')
            return NULL;
        p = space(p + 1);
    }
    return NULL;
}

/* The value of the key at p. One with escapes may be one of ours. */
INLINE at value_of(struct scanner *s, at p, struct text *key)
{
    uint64_t seen;
    at after = ending(p, s->end, &seen);
    if (!after || seen & 1)
        return NULL;
    *key = (struct text){p, (size_t)(after - p)};
    p = space(after);
    return *p == ':' ? space(p + 1) : NULL;
}

static at skipped(struct scanner *s, at p);

INLINE at skipped_member(struct scanner *s, at p)
{
    struct text key;
    return (p = value_of(s, p, &key)) ? skipped(s, p) : NULL;
}

/* Past a value nobody wants. */
static at skipped(struct scanner *s, at p)
{
    uint64_t seen;
    struct number n;
    switch (*p) {
    case '"':
        return ending(p, s->end, &seen);
    case '{': case '[':
        if (s->depth == DEEPEST)
            return NULL;
        s->depth++;
        p = *p == '{' ? items(s, p, '}', skipped_member) : items(s, p, ']', skipped);
        s->depth--;
        return p;
    case 't': case 'f': case 'n':
        return word(p);
    default:
        return number(p, &n);
    }
}

/* ---- numbers ------------------------------------------------------------------------------------------------- */

/* An integer as args have it: 7, "7", "0x1f" (ROCm's streams), null; kind says which of these the decoder takes
 * without a second look. MISSING when it does not fit. */
INLINE at integer(at p, unsigned kind, int64_t *value)
{
    *value = MISSING;
    if (*p == 'n')
        return kind & NULLS ? word(p) : NULL;
    bool quoted = *p == '"';
    if (quoted && !(kind & TEXTS))
        return NULL;
    p += quoted;
    if (quoted && p[0] == '0' && p[1] == 'x') {
        at first = p += 2;
        uint64_t v = 0;
        for (; hex_digit(p) <= 15; p++)
            v = v << 4 | hex_digit(p);
        *value = (int64_t)v;
        return p == first || p - first > 15 || *p != '"' ? NULL : p + 1;
    }
    struct number n;
    p = number(p, &n);
    if (!p || n.places || n.exponent || n.digits > 30 || (quoted && *p != '"'))
        return NULL;
    if (n.digits <= 19 && n.value <= INT64_MAX) /* 19 digits fit 64 bits without a sign */
        *value = n.minus ? -(int64_t)n.value : (int64_t)n.value;
    return p + quoted;
}

INLINE at decimal(at p, struct number *n)
{
    p = number(p, n);
    return p && n->digits <= 19 && !n->exponent ? p : NULL;
}

/* Microseconds to nanoseconds: exact with three decimals; more are rounded as column_builder.to_ns rounds floats, where
 * we know the float. */
static bool to_ns(const struct number *us, int64_t *ns)
{
    static const uint64_t scale[] = {1000, 100, 10, 1};
    if (us->places <= 3) {
        uint64_t v;
        if (__builtin_mul_overflow(us->value, scale[us->places], &v) || v >= (uint64_t)LAST_NS)
            return false;
        *ns = us->minus ? -(int64_t)v : (int64_t)v;
        return true;
    }
    double unit = 1; /* exact up to 10^22 */
    for (uint32_t i = 0; i < us->places; i++)
        unit *= 10;
    double v = (double)us->value / unit; /* both exact, so the quotient is the nearest float */
    v = us->minus ? -v : v;
    *ns = (int64_t)floor(v) * 1000 + (int64_t)rint((v - floor(v)) * 1000);
    return !(us->value >> 53) && fabs(v) * 1000 < (double)FLOAT_EXACT_NS;
}

/* ---- one event ----------------------------------------------------------------------------------------------- */

INLINE bool same(struct text t, const void *bytes, size_t n) { return t.length == n && !memcmp(t.start, bytes, n); }
#define IS(text, literal) same(text, "\"" literal "\"", sizeof(literal) + 1)

INLINE void reset_args(struct scanner *s)
{
    for (int i = 0; i < s->integers; i++)
        s->values[i] = MISSING;
    for (int i = 0; i < s->texts; i++)
        s->written[i].length = 0;
}

INLINE at in_args(struct scanner *s, at p)
{
    struct text key, text;
    p = value_of(s, p, &key);
    if (!p || key.length > LONGEST_KEY || !(s->lengths >> key.length & 1))
        return p ? skipped(s, p) : NULL;
    const struct wanted *w = s->wanted, *last = w + s->wants;
    while (w < last && !same(key, w->key, w->length))
        w++;
    if (w == last)
        return skipped(s, p);
    if (w->kind & (ONLY_TEXT | FLAG)) {
        if ((p = string(p, s->end, &text)) && w->kind & FLAG)
            s->values[w->column] = text.length > 2 ? 1 : MISSING;
        return p;
    }
    if (!(w->kind & AS_WRITTEN))
        return integer(p, w->kind, &s->values[w->column]);
    at after = skipped(s, p);
    if (!after || (w->kind & OLDER && s->written[w->column].length))
        return NULL;
    s->written[w->column] = (struct text){p, (size_t)(after - p)};
    return after;
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

INLINE at in_event(struct scanner *s, at p)
{
    struct event *e = &s->e;
    struct text key, text;
    if (!(p = value_of(s, p, &key)))
        return NULL;
    if (IS(key, "ph")) {
        e->phase = p[0] == '"' && p[1] > ' ' && p[1] != '\\' && p[2] == '"' ? p[1] : 0;
        return e->phase ? p + 3 : NULL;
    }
    if (IS(key, "cat"))
        return string(p, s->end, &e->category);
    if (IS(key, "name"))
        return string(p, s->end, &e->name);
    if (IS(key, "pid"))
        return identity(p, s->end, &e->pid);
    if (IS(key, "tid"))
        return identity(p, s->end, &e->tid);
    if (IS(key, "ts"))
        return decimal(p, &e->start);
    if (IS(key, "dur"))
        return decimal(p, &e->duration);
    if (IS(key, "args")) {
        if (*p != '{')
            return NULL;
        if (e->has_args) /* the last of several counts */
            reset_args(s);
        e->has_args = true;
        return items(s, p, '}', in_args);
    }
    if (IS(key, "id")) {
        at after = integer(p, TEXTS, &e->id);
        e->id_known = after != NULL; /* other text matters only in flows */
        return after ? after : string(p, s->end, &text);
    }
    return skipped(s, p);
}

/* ---- many events --------------------------------------------------------------------------------------------- */

INLINE bool thread_of(struct scanner *s, struct text pid, struct text tid, int32_t *code)
{
    if (!same(pid, s->pid.start, s->pid.length) || !same(tid, s->tid.start, s->tid.length)) {
        uint8_t key[256]; /* [pid,tid] */
        size_t comma = 1 + pid.length, last = comma + 1 + tid.length;
        if (last >= sizeof key)
            return false;
        key[0] = '[', key[comma] = ',', key[last] = ']';
        memcpy(key + 1, pid.start, pid.length);
        memcpy(key + comma + 1, tid.start, tid.length);
        s->last_thread = coded(&s->tables[THREADS], (struct text){key, last + 1});
        s->pid = pid, s->tid = tid;
    }
    *code = s->last_thread;
    return *code >= 0;
}

static bool span(struct scanner *s, int64_t start)
{
    const struct event *e = &s->e;
    int64_t row = s->rows, duration;
    if (!e->duration.digits || !to_ns(&e->duration, &duration) || (e->duration.minus && e->duration.value) ||
        duration >= FLOAT_EXACT_NS || !thread_of(s, e->pid, e->tid, &s->thread[row]))
        return false;
    s->start[row] = start;
    s->duration[row] = duration;
    s->name[row] = coded(&s->tables[NAMES], e->name);
    s->category[row] = coded(&s->tables[CATEGORIES], e->category);
    if (s->name[row] < 0 || s->category[row] < 0)
        return false;
    for (int i = 0; i < s->integers; i++) {
        int64_t value = s->values[i];
        if (!s->filled[i] && value != MISSING) {
            for (int64_t before = 0; before < row; before++)
                s->integer[i][before] = MISSING;
            s->filled[i] = true;
        }
        if (s->filled[i])
            s->integer[i][row] = value;
    }
    for (int i = 0; i < s->texts; i++) {
        s->text[i][row] = s->written[i].length ? coded(&s->tables[TABLES + i], s->written[i]) + 1 : 0;
        if (s->written[i].length && !s->text[i][row])
            return false;
    }
    s->rows++;
    return true;
}

static bool flow(struct scanner *s, int64_t start)
{
    const struct event *e = &s->e;
    int64_t arrow = NO_ARROW;
    for (int i = 0; i < s->flows && !arrow; i++)
        if (same(e->category, s->arrows[i].key, s->arrows[i].length))
            arrow = s->arrows[i].kind;
    if (!arrow || (arrow == LAUNCH && e->phase != 's')) /* counted, unless escapes hide what it is */
        return !memchr(e->category.start, '\\', e->category.length);
    struct link link = {e->phase, arrow, e->id, -1, start, e->pid, e->tid};
    void *place = e->id_known ? added(&s->links, sizeof link) : NULL;
    if (place)
        memcpy(place, &link, sizeof link);
    return place;
}

INLINE at event(struct scanner *s, at p)
{
    static const struct event empty = {.name = {(at)"\"\"", 2}, .category = {(at)"\"\"", 2}, .pid = {(at)"null", 4},
        .tid = {(at)"null", 4}, .id = MISSING, .id_known = true};
    if (p >= s->end || *p != '{')
        return NULL;
    s->e = empty;
    reset_args(s);
    at after = items(s, p, '}', in_event);
    if (!after)
        return NULL;
    uint8_t phase = s->phases[s->e.phase];
    if (phase == ASIDE) { /* names of threads: few, and only they have such args. The caller decodes and counts them. */
        int64_t *place = added(&s->aside, 2 * sizeof *place);
        if (place)
            place[0] = p - s->text_start, place[1] = after - s->text_start;
        return place ? after : NULL;
    }
    int64_t start = 0;
    bool timed = s->e.start.digits;
    if (timed && !to_ns(&s->e.start, &start))
        return NULL;
    s->large |= start >= FLOAT_EXACT_NS || start <= -FLOAT_EXACT_NS;
    s->rounded |= s->e.start.places > 3;
    s->events++;
    bool taken = timed && (phase == SPAN ? span(s, start) : phase == FLOW && flow(s, start));
    return taken || phase == COUNTED ? after : NULL;
}

/* Code the threads of the block's arrows, in the order that the decoder's builder has: kind by kind, starts first.
 * Those of launches become pairs of id and thread. */
static bool thread_links(struct scanner *s, size_t from)
{
    struct link *links = (struct link *)s->links.items;
    size_t first = from / sizeof *links, last = first;
    int32_t code;
    for (size_t i = first; i < s->links.used / sizeof *links; i++) {
        if (links[i].arrow != LAUNCH) {
            links[last++] = links[i];
            continue;
        }
        int64_t *place = added(&s->launched, 2 * sizeof *place);
        if (!place || !thread_of(s, links[i].pid, links[i].tid, &code))
            return false;
        place[0] = links[i].id, place[1] = code;
    }
    s->links.used = last * sizeof *links;
    for (int pass = 0; pass < 4; pass++)
        for (size_t i = first; i < last; i++) {
            if (links[i].arrow != OTHER_ARROWS + pass / 2 || links[i].phase != "sf"[pass % 2])
                continue;
            if (!thread_of(s, links[i].pid, links[i].tid, &code))
                return false;
            links[i].thread = code;
        }
    return true;
}

/* Take the n bytes of a JSON list of events, as many rows as there are at the end of the columns; or leave all as it
 * was. only_look: leave all as it was in any case. */
bool scan_block(struct scanner *s, const uint8_t *text, size_t n, bool only_look)
{
    int64_t rows = s->rows, events = s->events;
    size_t launched = s->launched.used, links = s->links.used;
    bool large = s->large;
    uint32_t counts[TABLES + MOST_TEXTS];
    for (int i = 0; i < TABLES + s->texts; i++)
        counts[i] = s->tables[i].count;
    s->text_start = text, s->end = text + n;
    s->rounded = false, s->depth = 0, s->aside.used = 0;
    s->pid = s->tid = (struct text){text, 0}; /* no thread */
    at p = space(text);
    p = *p == '[' ? items(s, p, ']', event) : NULL;
    /* more text may follow the block */
    bool taken = p && p <= s->end && space(p) >= s->end && !(s->large && s->rounded) && thread_links(s, links);
    s->fine |= taken && s->rounded;
    if (!taken || only_look) {
        s->rows = rows, s->events = events, s->large = large;
        s->launched.used = launched, s->links.used = links, s->aside.used = 0;
        for (int i = 0; i < TABLES + s->texts; i++)
            forget(&s->tables[i], counts[i]);
    }
    return taken;
}

/* Give each text of a table its code in another one, which new texts are added to. False without memory. */
static bool translate(struct table *other, const struct table *t, struct list *codes)
{
    for (size_t code = codes->used / sizeof(int32_t); code < t->count; code++) {
        const struct entry *e = (struct entry *)t->entries.items + code;
        int32_t its = coded(other, (struct text){t->arena.items + e->start, e->length});
        int32_t *place = its < 0 ? NULL : added(codes, sizeof *place);
        if (!place)
            return false;
        *place = its;
    }
    return true;
}

/* Add what another scanner made of the blocks that follow, as if this one had scanned them, and leave that one empty.
 * The columns have room for its rows. False without memory. */
bool scan_join(struct scanner *s, struct scanner *other)
{
    const int32_t *codes[TABLES + MOST_TEXTS];
    int64_t first = s->rows, rows = other->rows;
    for (int i = 0; i < TABLES + s->texts; i++) {
        if (!translate(&s->tables[i], &other->tables[i], &other->codes[i]))
            return false;
        codes[i] = (const int32_t *)other->codes[i].items;
    }
    if (rows) {
        memcpy(s->start + first, other->start, (size_t)rows * sizeof *s->start);
        memcpy(s->duration + first, other->duration, (size_t)rows * sizeof *s->duration);
    }
    for (int64_t row = 0; row < rows; row++) {
        s->name[first + row] = codes[NAMES][other->name[row]];
        s->category[first + row] = codes[CATEGORIES][other->category[row]];
        s->thread[first + row] = codes[THREADS][other->thread[row]];
    }
    for (int i = 0; i < s->integers; i++) {
        for (int64_t row = s->filled[i] || !other->filled[i] ? first : 0; row < first; row++)
            s->integer[i][row] = MISSING;
        s->filled[i] |= other->filled[i];
        if (other->filled[i])
            memcpy(s->integer[i] + first, other->integer[i], (size_t)rows * sizeof(int64_t));
        for (int64_t row = s->filled[i] && !other->filled[i] ? 0 : rows; row < rows; row++)
            s->integer[i][first + row] = MISSING;
    }
    for (int i = 0; i < s->texts; i++)
        for (int64_t row = 0; row < rows; row++)
            s->text[i][first + row] = other->text[i][row] ? codes[TABLES + i][other->text[i][row] - 1] + 1 : 0;
    struct link *link = (struct link *)other->links.items;
    for (size_t i = 0; i < other->links.used / sizeof *link; i++)
        link[i].thread = codes[THREADS][link[i].thread];
    int64_t *pair = (int64_t *)other->launched.items; /* of id and thread */
    for (size_t i = 1; i < other->launched.used / sizeof *pair; i += 2)
        pair[i] = codes[THREADS][pair[i]];
    struct list *kept[] = {&s->launched, &s->links}, *more[] = {&other->launched, &other->links};
    for (int i = 0; i < 2; i++) {
        void *place = more[i]->used ? added(kept[i], more[i]->used) : NULL;
        if (more[i]->used && !place)
            return false;
        if (place)
            memcpy(place, more[i]->items, more[i]->used);
        more[i]->used = 0;
    }
    s->rows += rows, s->events += other->events, s->large |= other->large, s->fine |= other->fine;
    other->rows = other->events = 0, other->fine = false;
    memset(other->filled, 0, sizeof other->filled);
    return true;
}

const char *scan_source(void) { return SOURCE; }

struct scanner *scan_new(void) { return calloc(1, sizeof(struct scanner)); }

void scan_free(struct scanner *s)
{
    for (struct table *t = s->tables; t < s->tables + TABLES + MOST_TEXTS; t++)
        free(t->arena.items), free(t->entries.items), free(t->slots), free(s->codes[t - s->tables].items);
    free(s->launched.items), free(s->links.items), free(s->aside.items);
    free(s);
}
