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
#define _DEFAULT_SOURCE
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "json.h"
#include "mend.h"
#include "table.h"

#ifndef SOURCE
#define SOURCE ""
#endif

#define MISSING INT64_MIN
#define LAST_NS (INT64_C(1) << 62)                 /* leaves room for start + duration in 64 bits */
#define FLOAT_EXACT_NS ((INT64_C(1) << 43) * 1000) /* from here on a float of microseconds has no three decimals */

enum phase { UNKNOWN, COUNTED, SPAN, FLOW, ASIDE };
/* What an argument may be beside an integer; or what it is instead: a text nobody wants, any value, a text of which
 * only matters that it is there. OLDER: counts where its newer key is missing. FIXED: no fraction. */
enum kind { NULLS = 1, TEXTS = 2, ONLY_TEXT = 4, AS_WRITTEN = 8, FLAG = 16, OLDER = 32, FIXED = 64 };
enum arrow { NO_ARROW, GPU_WORK, LAUNCH, OTHER_ARROWS }; /* of launches only the ids of their starts are kept */
enum { NAMES, CATEGORIES, THREADS, TABLES };    /* the tables of the texts follow */
enum { MOST_INTEGERS = 16, MOST_TEXTS = 48, MOST_WANTED = 72, MOST_ARROWS = 32, LONGEST_KEY = 63 };
enum { PLAIN = 5 }; /* columns that every row has */
enum { OTHER = 1 }; /* what stands for a phase of several letters */
enum { DEEPEST = 60 }; /* brackets in a value nobody wants: the decoder has a limit too */
enum { STARTS = 1, DURATIONS = 2, IDS = 4 }; /* which number of a head */
enum { MOST_NUMBERS = 3, LONGEST_HEAD = 1000, MOST_HEADS = 4096, TRIED_HEADS = 512, SLOTS = 1 << 12, WAYS = 8 };

struct wanted { /* a key of args, or the category of a flow; with its quotes */
    uint8_t length, kind, column;
    uint8_t key[LONGEST_KEY];
};

struct link { /* an arrow's start or end; its thread is coded when the block is done, as the decoder's builder does */
    int64_t phase, arrow, id, thread, start_ns;
    struct text pid, tid;
};

enum fate { OF_NO_USE, REPAIRED, DROPPED, CLOSED_EARLY };

struct repair { /* what was wrong; its place in the text, -1: that of the event at hand; what to show of it */
    int64_t fate, place, text, length;
};

struct event {
    uint8_t phase;
    bool id_known, has_args;
    struct text name, category, pid, tid;
    struct number start, duration;
    int64_t id;
};

struct place { /* of a number */
    at from, to;
    uint8_t of;
};

/* How an event began that was taken, up to the last of its times and ids that comes before anything but names: most
 * begin so, but for these numbers. */
struct head {
    struct event e; /* what that says; of a span also the codes of its texts */
    int32_t name, category, thread;
    uint32_t next; /* number + 1 of the head that came next, the last time; or 0 */
    uint16_t numbers, ends[MOST_NUMBERS];
    uint8_t of[MOST_NUMBERS];
    uint8_t text[]; /* without the numbers: one is missing at each of `ends` */
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
    struct wanted wanted[MOST_WANTED], arrows[MOST_ARROWS];
    uint8_t phases[256];
    /* Beside columns: id and thread of `ac2g` starts; struct link; where metadata begin and end in the block. */
    struct list launched, links, aside;
    struct table tables[TABLES + MOST_TEXTS]; /* arenas are the inside of a JSON list, which is decoded in one call */
    int64_t rows, events;
    bool large; /* a time stamp was too large for a float: from now on more than three decimals are the decoder's */
    int64_t useless;     /* spans of the block without a time, or with an impossible one */
    struct list repairs; /* struct repair, of the text at hand */

    /* The block, and the event at hand. */
    at text_start, end;
    bool rounded; /* a time stamp had more than three decimals */
    bool odd;     /* a field had another type than PyTorch's: the decoder reads all times of such a block as decimals */
    int depth;
    at reached; /* the last key of an event or of its args that was looked at: all before it is strict JSON */
    struct event e;
    uint8_t places[256]; /* number + 1 of each wanted key, at or behind its place_of */
    bool placed;
    int64_t values[MOST_INTEGERS]; /* of its args */
    struct text written[MOST_TEXTS];
    struct text pid, tid; /* of the last thread in this block, mostly that of the next event too */
    int32_t last_thread;

    struct list heads;     /* pointers to them */
    uint32_t slots[SLOTS]; /* number + 1 of heads by how they begin, the last one first: hints, which may be wrong */
    uint32_t last_head;    /* number + 1 of the last event's, or 0 */
    size_t known_heads;    /* how often one was known */
    const struct head *head; /* of the event at hand, if it is known; else what may become one: */
    struct place numbers[MOST_NUMBERS];
    int number_count;
    struct event begun; /* the event as it was at the last of them */
    uint8_t given;      /* bits: which of its times and ids have come */
    bool head_ended;

    struct draft drafts[4];
    struct list mended; /* pointers to texts of events, to which links and the last thread may point */
};

/* ---- JSON values -------------------------------------------------------------------------------------------------- */

/* Every item between the brackets that open at p goes to `item`, a constant, so that each use is inlined. */
INLINE at more_items(struct scanner *s, at p, char close, at (*item)(struct scanner *, at))
{
    while (p) {
        p = indent(p, s->end);
        if (*p == close)
            return p + 1;
        if (*p != ',')
            return NULL;
        p = item(s, indent(p + 1, s->end));
    }
    return NULL;
}

INLINE at items(struct scanner *s, at p, char close, at (*item)(struct scanner *, at))
{
    p = indent(p + 1, s->end);
    return *p == close ? p + 1 : more_items(s, item(s, p), close, item);
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

static at skipped_box(struct scanner *s, at p);

/* Past a value nobody wants. */
INLINE at skipped(struct scanner *s, at p)
{
    uint64_t seen;
    struct number n;
    if (*p == '"')
        return ending(p, s->end, &seen);
    if (*p == '{' || *p == '[')
        return skipped_box(s, p);
    return *p == 't' || *p == 'f' || *p == 'n' ? word(p) : number(p, &n);
}

INLINE at skipped_member(struct scanner *s, at p)
{
    struct text key;
    return (p = value_of(s, p, &key)) ? skipped(s, p) : NULL;
}

static at skipped_box(struct scanner *s, at p)
{
    if (s->depth == DEEPEST)
        return NULL;
    s->depth++;
    p = *p == '{' ? items(s, p, '}', skipped_member) : items(s, p, ']', skipped);
    s->depth--;
    return p;
}

/* ---- numbers ------------------------------------------------------------------------------------------------- */

/* Past a string that has a letter or a sign that no integer has, or nothing in it; NULL: Python may read one in it. */
static at no_integer(const struct scanner *s, at p)
{
    struct text text;
    at after = string(p, s->end, &text);
    for (at q = p + 1; after && q < after - 1; q++) {
        bool escaped = *q == '\\';
        q += escaped;
        if (*q < 0x80 && !strchr(escaped ? "ubfnrt" : "0123456789abcdefABCDEFxXoO_+- ", *q))
            return after;
    }
    return after && text.length == 2 ? after : NULL;
}

/* An integer as args have it: 7, "7", "0x1f" (ROCm's streams), null, 7.0; kind says which of these the decoder takes
 * without a second look: another one is odd. MISSING when it does not fit. */
INLINE at integer(struct scanner *s, at p, unsigned kind, int64_t *value)
{
    *value = MISSING;
    if (*p == 'n') {
        s->odd |= !(kind & NULLS);
        return kind & FIXED ? NULL : word(p);
    }
    bool quoted = *p == '"';
    s->odd |= quoted && !(kind & TEXTS);
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
    if (!p || n.exponent || n.digits > 30 || (quoted && *p != '"'))
        return NULL;
    if (n.places) { /* what is behind the point is cut off */
        if (quoted || n.digits > 15 || kind & FIXED)
            return NULL;
        s->odd = true;
        for (uint32_t i = 0; i < n.places; i++)
            n.value /= 10;
    }
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
    for (int i = 0; i < MOST_INTEGERS; i++) /* all: a constant number takes less time */
        s->values[i] = MISSING;
    for (int i = 0; i < s->texts; i++)
        s->written[i].length = 0;
}

/* Where a key of args is looked for first among the places. */
INLINE uint8_t place_of(const uint8_t *key, size_t length)
{
    return (uint8_t)(length * 7 + key[1] * 5u + key[length - 2]);
}

static void place_wanted(struct scanner *s)
{
    for (int i = 0; i < s->wants; i++) {
        uint8_t place = place_of(s->wanted[i].key, s->wanted[i].length);
        while (s->places[place])
            place++;
        s->places[place] = (uint8_t)(i + 1);
    }
    s->placed = true;
}

INLINE at in_args(struct scanner *s, at p)
{
    struct text key, text;
    s->reached = p;
    if (!(p = value_of(s, p, &key)))
        return NULL;
    const struct wanted *w = NULL;
    uint8_t place = place_of(key.start, key.length);
    for (; s->places[place] && !w; place++)
        if (same(key, s->wanted[s->places[place] - 1].key, s->wanted[s->places[place] - 1].length))
            w = &s->wanted[s->places[place] - 1];
    if (!w)
        return skipped(s, p);
    if (w->kind & (ONLY_TEXT | FLAG)) {
        if ((p = string(p, s->end, &text)) && w->kind & FLAG)
            s->values[w->column] = text.length > 2 ? 1 : MISSING;
        return p;
    }
    if (!(w->kind & AS_WRITTEN)) {
        at after = integer(s, p, w->kind, &s->values[w->column]);
        if (after || *p != '"')
            return after;
        s->values[w->column] = MISSING;
        return no_integer(s, p);
    }
    at after = skipped(s, p);
    if (!after || (w->kind & OLDER && s->written[w->column].length))
        return NULL;
    s->written[w->column] = (struct text){p, (size_t)(after - p)};
    return after;
}

INLINE at text_or_null(struct scanner *s, at p, struct text *text)
{
    if (*p != 'n')
        return string(p, s->end, text);
    *text = (struct text){(at)"\"\"", 2};
    return s->odd = true, word(p);
}

/* A number; in quotes too, or null, which is none. */
INLINE at time_of(struct scanner *s, at p, struct number *n)
{
    bool quoted = *p == '"';
    if (*p == 'n')
        return s->odd = true, n->digits = 0, n->is_null = true, word(p);
    s->odd |= quoted;
    n->is_null = false;
    p = decimal(p + quoted, n);
    return p && quoted ? (*p == '"' ? p + 1 : NULL) : p;
}

/* A process or a thread: a string or an integer. */
INLINE at identity(struct scanner *s, at p, struct text *text)
{
    int64_t value;
    if (*p == '"')
        return string(p, s->end, text);
    if (*p == 'n') {
        *text = (struct text){p, 4};
        return s->odd = true, word(p);
    }
    at after = *p == '-' || digit(p) <= 9 ? integer(s, p, FIXED, &value) : NULL;
    *text = (struct text){p, (size_t)(after - p)};
    return after;
}

/* Note a number of a head; past it. */
INLINE at noted_number(struct scanner *s, at p, at after, uint8_t of)
{
    s->head_ended |= s->given & of || !(*p == '-' || digit(p) <= 9);
    s->given |= of;
    if (!s->head_ended)
        s->numbers[s->number_count++] = (struct place){p, after, of}, s->begun = s->e;
    return after;
}

INLINE at in_event(struct scanner *s, at p)
{
    struct event *e = &s->e;
    struct text key, text;
    s->reached = p;
    if (!(p = value_of(s, p, &key)))
        return NULL;
    if (IS(key, "ph")) {
        if (*p == 'n')
            return s->odd = true, e->phase = 0, word(p);
        p = string(p, s->end, &text);
        if (!p || memchr(text.start, '\\', text.length))
            return NULL;
        e->phase = text.length == 2 ? 0 : text.length > 3 || text.start[1] <= ' ' ? OTHER : text.start[1];
        return p;
    }
    if (IS(key, "cat"))
        return text_or_null(s, p, &e->category);
    if (IS(key, "name"))
        return text_or_null(s, p, &e->name);
    if (IS(key, "pid"))
        return identity(s, p, &e->pid);
    if (IS(key, "tid"))
        return identity(s, p, &e->tid);
    if (IS(key, "ts"))
        return noted_number(s, p, time_of(s, p, &e->start), STARTS);
    if (IS(key, "dur"))
        return noted_number(s, p, time_of(s, p, &e->duration), DURATIONS);
    if (IS(key, "args")) {
        s->head_ended = true;
        if (e->has_args) /* the last of several counts */
            reset_args(s);
        e->has_args = true;
        return *p == '{' ? items(s, p, '}', in_args) : (s->odd = true, skipped(s, p));
    }
    if (IS(key, "id")) {
        at after = integer(s, p, FIXED | TEXTS, &e->id);
        e->id_known = after != NULL; /* other text matters only in flows */
        return noted_number(s, p, after ? after : string(p, s->end, &text), IDS);
    }
    s->head_ended = true;
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
        s->last_thread = coded(&s->tables[THREADS], (struct text){key, last + 1}, ',');
        s->pid = pid, s->tid = tid;
    }
    *code = s->last_thread;
    return *code >= 0;
}

/* What the caller said of a category. */
static int64_t meaning(const struct scanner *s, struct text category)
{
    for (int i = 0; i < s->flows; i++)
        if (same(category, s->arrows[i].key, s->arrows[i].length))
            return s->arrows[i].kind;
    return NO_ARROW;
}

static bool span(struct scanner *s, int64_t start)
{
    const struct event *e = &s->e;
    int64_t row = s->rows, duration = 0;
    bool none = !e->duration.digits || (e->duration.minus && e->duration.value);
    if (none || !e->start.digits) { /* without a time, or with an impossible one */
        bool work = meaning(s, e->category) == GPU_WORK; /* kept, with 0 for both */
        if (!work && memchr(e->category.start, '\\', e->category.length))
            return false;
        s->useless += !work;
        /* A start that is missing makes the decoder read the block's times as decimals, and those of all that follow. */
        s->large |= !e->start.digits && !e->start.is_null;
        if (!work)
            return none || to_ns(&e->duration, &duration);
        start = duration = 0;
    } else if (!to_ns(&e->duration, &duration) || duration >= FLOAT_EXACT_NS) {
        return false;
    }
    const struct head *h = s->head;
    if (h && h->thread >= 0 && e->pid.start == h->e.pid.start && e->tid.start == h->e.tid.start)
        s->thread[row] = h->thread;
    else if (!thread_of(s, e->pid, e->tid, &s->thread[row]))
        return false;
    bool known = h && h->thread >= 0 && e->name.start == h->e.name.start && e->category.start == h->e.category.start;
    s->start[row] = start;
    s->duration[row] = duration;
    s->name[row] = known ? h->name : coded(&s->tables[NAMES], e->name, ',');
    s->category[row] = known ? h->category : coded(&s->tables[CATEGORIES], e->category, ',');
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
        s->text[i][row] = s->written[i].length ? coded(&s->tables[TABLES + i], s->written[i], ',') + 1 : 0;
        if (s->written[i].length && !s->text[i][row])
            return false;
    }
    s->rows++;
    return true;
}

static bool flow(struct scanner *s, int64_t start)
{
    const struct event *e = &s->e;
    int64_t arrow = meaning(s, e->category);
    if (arrow < LAUNCH || (arrow == LAUNCH && e->phase != 's')) /* counted, unless escapes hide what it is */
        return !memchr(e->category.start, '\\', e->category.length);
    struct link link = {e->phase, arrow, e->id, -1, start, e->pid, e->tid};
    void *place = e->id_known ? added(&s->links, sizeof link) : NULL;
    if (place)
        memcpy(place, &link, sizeof link);
    return place;
}

/* ---- heads ----------------------------------------------------------------------------------------------------- */

/* Nearly every event begins like one before it, but for two or three numbers: what else is in its head was read, and
 * proved, when that one was taken, and is compared instead. What follows the head is read as ever. */

/* Past the head of the event at p, if it is like this one; its numbers are read. */
INLINE at as_head(struct scanner *s, at p, const struct head *h)
{
    size_t done = 0;
    s->e = h->e;
    for (int i = 0; i < h->numbers; i++) {
        size_t length = h->ends[i] - done;
        if ((size_t)(s->end - p) < length || memcmp(p, h->text + done, length))
            return NULL;
        p += length, done += length;
        if (h->of[i] == IDS)
            p = *p == '"' || *p == 'n' ? NULL : integer(s, p, FIXED, &s->e.id);
        else
            p = decimal(p, h->of[i] == STARTS ? &s->e.start : &s->e.duration);
        if (!p)
            return NULL;
    }
    return p;
}

/* Where heads that begin like the text at p are looked for. */
static uint32_t *slots_of(struct scanner *s, at p)
{
    uint64_t h = 0;
    if (s->end - p > 64) /* Kineto writes the id of an arrow 23 bytes behind its brace */
        for (int i = 8; i < (digit(p + 23) <= 9 ? 16 : 64); i += 8)
            h = mixed(h, load8(p + i));
    return s->slots + (h >> 20) % (SLOTS / WAYS) * WAYS;
}

/* Past the head of the event at p, if it is known. */
INLINE at known_head(struct scanner *s, at p)
{
    struct head **all = (struct head **)s->heads.items, *last = s->last_head ? all[s->last_head - 1] : NULL;
    uint32_t count = (uint32_t)(s->heads.used / sizeof *all), found = last ? last->next : 0;
    at after = found && found <= count ? as_head(s, p, all[found - 1]) : NULL;
    if (!after) {
        uint32_t *slots = slots_of(s, p);
        for (int i = 0; i < WAYS && !after; i++) {
            found = slots[i];
            if (found && found <= count && (after = as_head(s, p, all[found - 1]))) {
                memmove(slots + 1, slots, (size_t)i * sizeof *slots); /* to the front */
                *slots = found;
                if (last)
                    last->next = found;
            }
        }
    }
    if (after)
        s->last_head = found, s->known_heads++;
    s->head = after ? all[found - 1] : NULL;
    return after;
}

/* Keep the head of the event at p, which was just taken. */
static void keep_head(struct scanner *s, at p, bool is_row)
{
    size_t count = s->heads.used / sizeof(void *);
    uint32_t *slots = slots_of(s, p), last = s->last_head;
    s->last_head = 0;
    bool of_use = count < TRIED_HEADS || s->known_heads > count; /* not where every event has a name of its own */
    if (s->odd || !s->number_count || count == MOST_HEADS || !of_use)
        return;
    at end = s->numbers[s->number_count - 1].from;
    struct head *h = end - p > LONGEST_HEAD ? NULL : malloc(sizeof *h + (size_t)(end - p)), **kept;
    if (!h || !(kept = added(&s->heads, sizeof h))) {
        free(h);
        return;
    }
    *kept = h;
    h->e = s->begun, h->next = 0, h->numbers = (uint16_t)s->number_count;
    h->name = h->category = h->thread = -1;
    struct text *texts[] = {&h->e.name, &h->e.category, &h->e.pid, &h->e.tid};
    size_t done = 0;
    for (int i = 0; i < s->number_count; p = s->numbers[i++].to) {
        at to = s->numbers[i].from;
        memcpy(h->text + done, p, (size_t)(to - p));
        for (int j = 0; j < 4; j++)
            if (texts[j]->start >= p && texts[j]->start < to)
                texts[j]->start = h->text + done + (texts[j]->start - p);
        done += (size_t)(to - p);
        h->ends[i] = (uint16_t)done, h->of[i] = s->numbers[i].of;
    }
    bool same_texts = s->begun.name.start == s->e.name.start && s->begun.category.start == s->e.category.start;
    if (is_row && same_texts && s->begun.pid.start == s->e.pid.start && s->begun.tid.start == s->e.tid.start) {
        int64_t row = s->rows - 1;
        h->name = s->name[row], h->category = s->category[row], h->thread = s->thread[row];
    }
    memmove(slots + 1, slots, (WAYS - 1) * sizeof *slots);
    s->last_head = *slots = (uint32_t)count + 1;
    if (last)
        ((struct head **)s->heads.items)[last - 1]->next = *slots;
}

static void forget_heads(struct scanner *s, size_t used)
{
    for (; s->heads.used > used; s->heads.used -= sizeof(void *))
        free(((void **)(s->heads.items + s->heads.used))[-1]);
    s->last_head = 0;
}

/* Not inlined: there are five calls, and compiling takes six times as long with a copy at each. */
static __attribute__((noinline)) at event(struct scanner *s, at p)
{
    static const struct event empty = {.name = {(at)"\"\"", 2}, .category = {(at)"\"\"", 2}, .pid = {(at)"null", 4},
        .tid = {(at)"null", 4}, .id = MISSING, .id_known = true};
    if (p >= s->end || *p != '{')
        return NULL;
    reset_args(s);
    bool odd = s->odd;
    s->number_count = 0, s->given = 0, s->head_ended = s->odd = false, s->reached = p;
    at after = known_head(s, p);
    if (after) {
        s->head_ended = true;
        after = more_items(s, after, '}', in_event);
    } else {
        s->e = empty;
        after = items(s, p, '}', in_event);
    }
    if (!after)
        return NULL;
    uint8_t phase = s->phases[s->e.phase];
    int64_t start = 0, rows = s->rows;
    bool timed = s->e.start.digits;
    if (timed && !to_ns(&s->e.start, &start))
        return NULL;
    s->large |= start >= FLOAT_EXACT_NS || start <= -FLOAT_EXACT_NS;
    if (phase == ASIDE) { /* names of threads, begins and ends: mostly few. The caller decodes and counts them. */
        int64_t *place = s->e.start.places > 3 ? NULL : added(&s->aside, 2 * sizeof *place);
        if (place)
            place[0] = p - s->text_start, place[1] = after - s->text_start;
        s->odd |= odd;
        return place ? after : NULL;
    }
    s->rounded |= s->e.start.places > 3;
    s->events++;
    bool taken = phase == COUNTED || (phase == SPAN ? span(s, start) : phase == FLOW && timed && flow(s, start));
    if (taken && !s->head)
        keep_head(s, p, s->rows > rows);
    s->odd |= odd;
    return taken ? after : NULL;
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

struct mark { /* what there was before a block or an event */
    int64_t rows, events, useless;
    size_t launched, links, aside, repairs, heads;
    bool large, rounded, odd;
    struct text pid, tid;
    int32_t last_thread;
    uint32_t last_head, counts[TABLES + MOST_TEXTS];
};

static void mark(const struct scanner *s, struct mark *m)
{
    m->rows = s->rows, m->events = s->events, m->useless = s->useless;
    m->launched = s->launched.used, m->links = s->links.used, m->aside = s->aside.used, m->repairs = s->repairs.used;
    m->heads = s->heads.used, m->last_head = s->last_head;
    m->pid = s->pid, m->tid = s->tid, m->last_thread = s->last_thread;
    m->large = s->large, m->rounded = s->rounded, m->odd = s->odd;
    for (int i = 0; i < TABLES + s->texts; i++)
        m->counts[i] = s->tables[i].count;
}

static void undo(struct scanner *s, const struct mark *m)
{
    s->rows = m->rows, s->events = m->events, s->useless = m->useless;
    s->launched.used = m->launched, s->links.used = m->links, s->aside.used = m->aside, s->repairs.used = m->repairs;
    s->large = m->large, s->rounded = m->rounded, s->odd = m->odd;
    for (int i = 0; i < TABLES + s->texts; i++)
        forget(&s->tables[i], m->counts[i]);
    forget_heads(s, m->heads);
    s->last_head = m->last_head;
    s->pid = m->pid, s->tid = m->tid, s->last_thread = m->last_thread;
}

static void begin_block(struct scanner *s, const uint8_t *text, size_t n)
{
    s->text_start = text, s->end = text + n;
    if (!s->placed)
        place_wanted(s);
    s->rounded = s->odd = false, s->depth = 0, s->useless = 0;
    s->aside.used = s->repairs.used = 0;
    if (s->heads.used == MOST_HEADS * sizeof(void *))
        forget_heads(s, 0);
    s->pid = s->tid = (struct text){text, 0}; /* no thread */
    for (uint8_t **kept = (uint8_t **)s->mended.items; s->mended.used; s->mended.used -= sizeof *kept)
        free(*kept++);
}

/* Whether the block's times are what the decoder makes of them; if so, its arrows get their threads. */
static bool end_block(struct scanner *s, const struct mark *before)
{
    bool decimals = s->large || s->odd; /* as the decoder reads them */
    return !(decimals && s->rounded) && !(s->odd && s->large != before->large) && thread_links(s, before->links);
}

/* Take the n bytes of a JSON list of events, as many rows as there are at the end of the columns; or leave all as it
 * was. only_look: leave all as it was in any case. */
bool scan_block(struct scanner *s, const uint8_t *text, size_t n, bool only_look)
{
    struct mark before;
    begin_block(s, text, n);
    mark(s, &before);
    at p = space(text);
    p = *p == '[' ? items(s, p, ']', event) : NULL;
    /* more text may follow the block */
    bool taken = p && p <= s->end && space(p) >= s->end && end_block(s, &before);
    if (!taken || only_look)
        undo(s, &before);
    return taken;
}

/* ---- malformed events ------------------------------------------------------------------------------------------ */

static bool is_blank(uint8_t c) { return c <= ' ' && memchr(" \t\r\n", c, 5); } /* with the NUL: a hole in a file */

/* Whether an event of Kineto's own layout begins at this brace. */
INLINE bool kineto_start(at text, at p)
{
    bool before = p - text >= 3 && p[-1] == ' ' && p[-2] == ' ' && p[-3] == '\n';
    return before && (p[1] == '\n' || (p[1] == '\r' && p[2] == '\n'));
}

/* Whether an event of another layout may begin at this brace: one of its keys follows, and it is no value of one. */
static bool any_start(at text, at p)
{
    at key = space(p + 1), behind = *key == '"' ? event_key(key + 1, "ph\0name\0cat\0pid\0tid\0ts\0dur\0id\0args\0s\0bp\0") : NULL;
    if (!behind || *space(behind) != ':')
        return false;
    while (p > text && is_blank(p[-1]) && p[-1])
        p--;
    return p == text || p[-1] != ':';
}

static at next_start(const struct scanner *s, at p, bool kineto)
{
    while (p < s->end && (p = memchr(p, '{', (size_t)(s->end - p)))) {
        if (kineto ? kineto_start(s->text_start, p) : any_start(s->text_start, p))
            return p;
        p++;
    }
    return NULL;
}

/* How often a text says its phase with one letter, in strings too; at most so often. */
static int phases_in(at p, at end, int most)
{
    int found = 0;
    for (; found < most && p < end && (p = memchr(p, 'p', (size_t)(end - p))); p++) {
        if (p[1] != 'h' || p[2] != '"' || p[-1] != '"')
            continue;
        at value = space(p + 3);
        value = *value == ':' ? space(value + 1) : value;
        found += value[0] == '"' && ((value[1] | 32u) - 'a') < 26 && value[2] == '"' && value + 3 <= end;
    }
    return found;
}

enum outcome { NO, YES, UNSURE };

static bool noted(struct scanner *s, enum fate fate, int64_t place, at text, at end)
{
    struct repair repair = {fate, place, (intptr_t)text, end - text}, *kept = added(&s->repairs, sizeof repair);
    if (kept)
        *kept = repair;
    return kept;
}

/* Take the event whose text a draft is, if repair.py would. mended: what is no JSON outside of its strings was. */
static enum outcome take_draft(struct scanner *s, struct draft *d, bool may_lack_name, bool mended, const struct mark *before)
{
    if (d->doubt || d->failed)
        return UNSURE;
    at end = s->end, text = d->text.items, text_end = s->end = text + d->text.used, after = event(s, text);
    s->end = end;
    if (after == text_end && s->aside.used == before->aside && s->e.phase != OTHER && (may_lack_name || s->e.name.length > 2)) {
        bool useless = s->useless != before->useless;
        s->pid = before->pid, s->tid = before->tid, s->last_thread = before->last_thread;
        if (!useless && s->links.used == before->links)
            return YES;
        uint8_t **kept = added(&s->mended, sizeof text); /* what points into the text needs it until the next block */
        if (!kept)
            return UNSURE;
        *kept = d->text.items, d->text = (struct list){0};
        return !useless || noted(s, OF_NO_USE, -1, text, after) ? YES : UNSURE;
    }
    undo(s, before);
    return !mended || verdict(text, text_end, true) == BROKEN ? NO : UNSURE;
}

/* Decode the text between p and end, and mend what is outside its strings; whether that changed anything. Then the text
 * is broken: where it changed, or before. reached: before it there is nothing to mend, but a comma. wrong: the byte at
 * which it is broken if it does not change up to there; NULL: not known. */
static bool changed(struct scanner *s, at p, at end, at reached, at wrong)
{
    struct draft *d = s->drafts, *made = d + 1;
    for (int i = 0; i < 4; i++)
        d[i].doubt = d[i].failed = false;
    decoded(d, p, end);
    if (d->failed)
        return false;
    at text = d->text.items, text_end = text + d->text.used, from = text + ((reached < end ? reached : end) - p);
    while (from > text && (is_blank(from[-1]) || from[-1] == ','))
        from--;
    bool moved = text_end - text != end - p;
    return outside(made, text, text_end, moved ? text : from, moved || !wrong ? text_end : text + (wrong - p));
}

/* Mend and take the event between p and end, in the ways and in the order of repair.py's mend(). is_changed: what
 * changed() said of just this text. raw: what it is as it is; one that is only cut off has no string to mend. */
static enum outcome mended(struct scanner *s, at p, at end, at reached, bool is_changed, enum verdict raw, const struct mark *before)
{
    struct draft *d = s->drafts, *made = d + 1, *named = d + 2, *strings = d + 3;
    if (d->failed || end - p > 1 << 20)
        return UNSURE;
    at text = d->text.items, text_end = text + d->text.used;
    at sound = text_end - text == end - p && reached < end && *reached == '"' ? text + (reached - p) : text;
    bool may_lack_name = true;
    for (at q = text; may_lack_name && (q = memchr(q, '"', (size_t)(text_end - q))); q++)
        may_lack_name = strncmp((const char *)q, "\"name\"", 6);
    bool is_named = false;
    for (int candidate = 0; candidate < 4; candidate++) {
        struct draft *one = candidate == 0 ? d : candidate == 1 ? named : strings;
        if (candidate == 1)
            is_named = mend_name(named, text, text_end);
        if (!is_named && (candidate & 1 || (candidate == 2 && raw == CUT)))
            continue;
        at named_text = named->text.items;
        if (candidate == 2 && is_named && !mend_strings(strings, named_text, named_text + named->text.used, named_text))
            continue;
        if (candidate > 1 + is_named && !mend_strings(strings, text, text_end, sound))
            continue;
        if (one->doubt || one->failed)
            return UNSURE;
        enum outcome taken = NO;
        at first = one->text.items, last = first + one->text.used;
        if (candidate && !strstr((const char *)first, "\\u")) /* mostly nothing else is wrong */
            taken = take_draft(s, one, may_lack_name, false, before);
        if (taken != NO)
            return taken;
        if (candidate)
            outside(made, first, last, first, last);
        else if (!is_changed && d->text.used == (size_t)(end - p) && ((raw != SOUND && raw != DOUBTFUL) || verdict(text, text_end, true) == BROKEN))
            continue; /* it is what is in the file */
        taken = take_draft(s, made, may_lack_name, true, before);
        if (taken != NO)
            return taken;
    }
    return named->doubt || strings->doubt ? UNSURE : NO;
}

/* What becomes of the text between an event's start at p and the next start, which holds more than that event or is
 * broken: how far the event goes, if it is taken. UNSURE: repair.py must say. whole: behind the event, if it begins with
 * a whole one. `later` is the start after the next. */
static enum outcome recovered(struct scanner *s, at p, at whole, at end, at next, at later, const struct mark *before, at *upto)
{
    at reached = s->reached, wrong = whole || reached == p ? NULL : wrong_in_member(reached, end);
    bool is_changed = end[-1] == '}' && changed(s, p, end, reached, wrong);
    enum verdict raw = is_changed || wrong ? BROKEN : verdict(p, end, false);
    if ((raw == SOUND || (raw == DOUBTFUL && end[-1] == '}')) && (whole || is_utf8(p, end)))
        return UNSURE;
    if (raw >= CUT && verdict(p, later, false) != BROKEN) /* more text may make it whole */
        return UNSURE;
    for (at q = p + 1; (q = memchr(q, '{', (size_t)(next - q))); q++)
        if (any_start(s->text_start, q))
            return UNSURE;
    enum outcome outcome = NO;
    *upto = end;
    if (end[-1] == '}' && (outcome = mended(s, p, end, reached, is_changed, raw, before)) != NO)
        return outcome;
    at close = closed(p, next), brace = end;
    while (brace > p && brace[-1] != '}')
        brace--;
    if (close && (*upto = close) < end) {
        if (whole)
            return whole == close && event(s, p) == close ? YES : UNSURE;
        if (close[-1] == '}')
            outcome = mended(s, p, close, reached, changed(s, p, close, reached, NULL), DOUBTFUL, before);
    }
    if (outcome == NO && brace > p && brace != close && (*upto = brace) < end)
        outcome = mended(s, p, brace, reached, changed(s, p, brace, reached, NULL), DOUBTFUL, before);
    return outcome;
}

/* Count what is between an event's end at p and the next start: a `]` that does not close the list, and what does not
 * belong there. False: the list may end here. */
static bool left_behind(struct scanner *s, at p, at next)
{
    at bracket = p;
    while (bracket < next && (is_blank(*bracket) || *bracket == ',' || *bracket == '}'))
        bracket++;
    if (bracket < next && *bracket == ']') {
        at after = space(bracket + 1);
        while (*after == ']')
            after = space(after + 1);
        if (after >= s->end || strchr("}[{", *after) || (*after == ',' && strchr("\"", *space(after + 1))))
            return false;
        if (!noted(s, CLOSED_EARLY, bracket - s->text_start, bracket, bracket + 1))
            return false;
        p = bracket + 1;
    }
    while (p < next && (is_blank(*p) || *p == ','))
        p++;
    for (at q = p; q < next; q++)
        if (!is_blank(*q) && !strchr(",[]{}", *q))
            return noted(s, DROPPED, p - s->text_start, p, next);
    return true;
}

/* Take events from the beginning of a text that is cut anywhere, and mend those that are malformed, as far as it is
 * sure to do what repair.py does: up to the start of an event. Return how many bytes are done with; 0 for none.
 *
 * It is sure where each event has its phase once, and the next one too: then repair.py tries no text but the one from
 * this start to the next. */
size_t scan_mend(struct scanner *s, const uint8_t *text, size_t n)
{
    struct mark before, one;
    begin_block(s, text, n);
    mark(s, &before);
    at p = text;
    while (p < s->end && (is_blank(*p) || *p == ','))
        p++;
    bool kineto = p < s->end && kineto_start(text, p);
    if (memchr(text, '\f', n) || memchr(text, '\v', n)) /* which are white space to Python */
        return 0;
    if (p >= s->end || *p != '{' || (!kineto && (!any_start(text, p) || next_start(s, text, true))))
        return 0;
    at first = p, next = next_start(s, p + 1, kineto), later = NULL;
    for (; next && (size_t)(s->rows - before.rows) < n / 26; p = next, next = later) {
        at end = next;
        while (end > p && (is_blank(end[-1]) || end[-1] == ','))
            end--;
        later = next_start(s, next + 1, kineto);
        mark(s, &one);
        at after = event(s, p), brace = after, upto = end;
        bool sure = true;
        if (after != end) {
            while (brace && brace < end && (*brace == '}' || is_blank(*brace) || *brace == ','))
                brace++; /* too many closing brackets are no loss */
            undo(s, &one);
            if (!later || phases_in(p, next, 2) != 1 || !phases_in(next, later, 1))
                break;
            if (brace != end) {
                enum outcome outcome = recovered(s, p, after, end, next, later, &one, &upto);
                bool whole = outcome == YES && upto == after;
                if (outcome == NO)
                    sure = noted(s, DROPPED, p - text, p, next);
                else
                    sure = outcome == YES && (whole || noted(s, REPAIRED, p - text, p, upto)) && left_behind(s, upto, next);
                end = upto;
            } else {
                end = event(s, p);
            }
        }
        bool useless = s->useless > one.useless;
        struct repair *kept = (struct repair *)(s->repairs.items + one.repairs);
        for (; (uint8_t *)kept < s->repairs.items + s->repairs.used; kept++)
            if (kept->place < 0)
                kept->place = p - text, useless = false; /* it is shown as mended */
        if (!sure || (useless && !noted(s, OF_NO_USE, p - text, p, end))) {
            undo(s, &one);
            break;
        }
    }
    if (p > first && end_block(s, &before))
        return (size_t)(p - text) - (kineto ? 3 : 0); /* the line's beginning tells Kineto's events */
    undo(s, &before);
    return 0;
}

/* Whether the list may end somewhere in a text: after a `}`. */
bool scan_may_end(const uint8_t *text, size_t n)
{
    at end = text + n;
    for (at p = text; (p = memchr(p, '}', (size_t)(end - p))); p++) {
        at after = p + 1; /* with all that is white space to Python */
        while (*after == ' ' || (*after >= '\t' && *after <= '\r'))
            after++;
        if (*after == ']')
            return true;
    }
    return false;
}

/* Have the system give memory for these rows, which takes as long as to read half of them: a thread does so meanwhile. */
void scan_touch(const struct scanner *s, int64_t first, int64_t last)
{
#ifdef MADV_POPULATE_WRITE
    const uintptr_t page = 4096;
    void *const *columns = (void *const *)s;
    for (int i = 0; i < PLAIN + s->integers; i++) {
        size_t width = i >= 2 && i < PLAIN ? 4 : 8;
        uintptr_t from = ((uintptr_t)columns[i] + (size_t)first * width) / page * page;
        uintptr_t to = ((uintptr_t)columns[i] + (size_t)last * width) / page * page;
        if ((i < PLAIN || s->filled[i - PLAIN]) && from < to)
            madvise((void *)from, to - from, MADV_POPULATE_WRITE); /* changes nothing, and may fail */
    }
#else
    (void)s, (void)first, (void)last;
#endif
}

const char *scan_source(void) { return SOURCE; }

struct scanner *scan_new(void) { return calloc(1, sizeof(struct scanner)); }

void scan_free(struct scanner *s)
{
    for (struct table *t = s->tables; t < s->tables + TABLES + MOST_TEXTS; t++)
        free(t->arena.items), free(t->entries.items), free(t->slots);
    begin_block(s, NULL, 0);
    forget_heads(s, 0);
    for (struct draft *d = s->drafts; d < s->drafts + sizeof s->drafts / sizeof *s->drafts; d++)
        free(d->text.items);
    free(s->launched.items), free(s->links.items), free(s->aside.items), free(s->repairs.items), free(s->mended.items);
    free(s->heads.items);
    free(s);
}
