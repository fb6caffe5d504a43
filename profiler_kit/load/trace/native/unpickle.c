/* The native reader of memory snapshots: a pickle in, columns out.
 *
 * It knows the opcodes that write dicts, lists, tuples, numbers and strings in protocols 2 to 5, none that names code,
 * and the shapes that torch writes. At the first thing it does not know it gives up, and the caller asks the reader in
 * Python (unpickle_child.py), which is the reference. So it may refuse what that one reads, which costs time, but never
 * take what that one would refuse or read otherwise.
 *
 * The opcodes make a graph of values first (read), then the columns are filled from it (fill). Nothing recurses, and
 * what is held stays below a bound. native.py drives it through ctypes, without Python's lock.
 */
#include <stddef.h>

#include "table.h"

typedef int64_t value; /* its tag in the low three bits; above them a small number, or its place among its like */

enum tag { SMALL, LARGE, FLOAT, TEXT, DICT, LIST, TUPLE, WORD };
enum { NONE, NO, YES, MISSING }; /* words */
enum { MOST_FRAMES = 1024, MOST_LENGTH = 4096, MOST_NAMES = 4096, MOST_DEVICES = 128, MOST_SETTINGS = 1000, MOST_ITEMS = 256, HOST = -2 };

/* Texts with a meaning are the first ones of all. */
enum known { EMPTY, ACTION, ADDR, SIZE, STREAM, TIME, FRAMES, POOL, FREE, METADATA, COMPILE, CATEGORY, STAGE, NAME, DEVICE,
    FILENAME, LINE, ADDRESS, TOTAL, TYPE, SEGMENT_POOL, EXPANDABLE, ALLOCATED, ACTIVE, BLOCKS, REQUESTED, STATE, HISTORY, SEGMENTS, TRACES,
    ANNOTATIONS, HOST_TRACES, HOST_SEGMENTS, SETTINGS, KIT, KEYS, OOM = KEYS, USER, START, END, KNOWN };
static const char *const known[KNOWN] = {"", "action", "addr", "size", "stream", "time_us", "frames", "pool_id",
    "device_free", "user_metadata", "compile_context", "category", "stage", "name", "device", "filename", "line", "address",
    "total_size", "segment_type", "segment_pool_id", "is_expandable", "allocated_size", "active_size", "blocks", "requested_size", "state", "history",
    "segments", "device_traces", "external_annotations", "host_traces", "host_segments", "allocator_settings",
    "profiler_kit", "oom", "user_defined", "START", "END"};

struct box { /* a dict, whose items are keys and values in turn, a list or a tuple */
    size_t first;
    uint32_t count, room;
    int32_t code; /* of the frame or the stack that it is; -1: not known yet */
};

struct numbering { /* names in the order in which they are met */
    struct list codes, texts; /* code + 1 of each text; text of each code */
};
enum { ACTIONS, STATES, NAMES, STRINGS, SAID, NUMBERINGS = SAID + 3 };

struct reader {
    struct { /* what the caller gives room for, when the rows are counted */
        int32_t *device, *action, *stack, *pool, *said[3];
        uint64_t *address;
        int64_t *size, *stream, *time;
    } event;
    struct {
        int64_t *device;
        uint64_t *address;
        int64_t *total, *stream;
        int32_t *type, *pool;
        int8_t *expandable;
        int64_t *own[3];
    } segment;
    struct {
        int64_t *segment;
        uint64_t *address;
        int64_t *size, *requested;
        int32_t *state, *stack;
    } block;
    struct {
        int8_t *end;
        int64_t *device;
        int32_t *name;
        int64_t *time;
    } annotation;
    int64_t events, segments, blocks, annotations, odd_annotations, devices;
    struct table texts, frames, stacks, pools; /* of bytes; of struct frame; of codes of frames; of two numbers, or none */
    struct numbering numberings[NUMBERINGS];
    struct list frees, settings; /* row and bytes; struct setting */

    size_t most, held; /* bytes */
    value top[KEYS];
    struct list stack, marks, memo, values, boxes, wide; /* wide: 64 bits of a LARGE number or a FLOAT */
    bool unsure, pools_said;
};

struct frame { int64_t file, line, name; };
struct setting { int64_t depth, key, tag, inside; };

INLINE value made(enum tag tag, int64_t inside) { return (value)((uint64_t)inside << 3 | tag); }
INLINE enum tag tag_of(value v) { return (enum tag)(v & 7); }
INLINE int64_t inside(value v) { return v >> 3; }
INLINE bool is_word(value v, int word) { return v == made(WORD, word); }
INLINE bool is_text(value v, enum known text) { return v == made(TEXT, text); }
INLINE struct box *box_of(struct reader *r, value v) { return (struct box *)r->boxes.items + inside(v); }
INLINE int64_t wide(const struct reader *r, value v) { return ((int64_t *)r->wide.items)[inside(v)]; }
INLINE value *items_of(struct reader *r, const struct box *box) { return (value *)r->values.items + box->first; }

/* Room for so many more bytes, as long as all together stay below the bound. */
INLINE void *more(struct reader *r, struct list *list, size_t bytes)
{
    size_t room = list->room;
    void *place = added(list, bytes);
    r->held += list->room - room;
    return r->held <= r->most ? place : NULL;
}

/* ---- the pickle ---------------------------------------------------------------------------------------------- */

INLINE size_t depth(const struct reader *r) { return r->stack.used / sizeof(value); }
INLINE value *top(struct reader *r) { return (value *)(r->stack.items + r->stack.used) - 1; }

/* How many values lie above the last mark. */
INLINE size_t above(const struct reader *r)
{
    const size_t *end = (const size_t *)(r->marks.items + r->marks.used);
    return depth(r) - (r->marks.used ? end[-1] : 0);
}

INLINE bool push(struct reader *r, value v)
{
    value *place = more(r, &r->stack, sizeof v);
    if (place)
        *place = v;
    return place;
}

static bool push_wide(struct reader *r, enum tag tag, uint64_t bits)
{
    uint64_t *place = more(r, &r->wide, sizeof bits);
    if (place)
        *place = bits;
    return place && push(r, made(tag, (int64_t)(r->wide.used / sizeof bits - 1)));
}

INLINE bool push_number(struct reader *r, int64_t number)
{
    if (number >= -(INT64_C(1) << 60) && number < INT64_C(1) << 60)
        return push(r, made(SMALL, number));
    return number > 0 && push_wide(r, LARGE, (uint64_t)number);
}

static bool push_text(struct reader *r, at p, uint64_t length)
{
    size_t entries = r->texts.entries.room, arena = r->texts.arena.room, slots = r->texts.most;
    int32_t code = length <= INT32_MAX && is_utf8(p, p + length) ? coded(&r->texts, (struct text){p, length}, 0) : -1;
    r->held += r->texts.entries.room - entries + r->texts.arena.room - arena + 8 * (r->texts.most - slots);
    r->pools_said |= code == POOL;
    return code >= 0 && push(r, made(TEXT, code));
}

/* A new dict, list or tuple of the topmost n values, which it takes away. */
static bool push_box(struct reader *r, enum tag tag, size_t n)
{
    struct box *box = more(r, &r->boxes, sizeof *box);
    value *items = more(r, &r->values, n * sizeof *items);
    if (!box || !items)
        return false;
    *box = (struct box){r->values.used / sizeof *items - n, (uint32_t)n, (uint32_t)n, -1};
    r->stack.used -= n * sizeof *items;
    memcpy(items, r->stack.items + r->stack.used, n * sizeof *items);
    return push(r, made(tag, (int64_t)(r->boxes.used / sizeof *box - 1)));
}

/* Put the topmost n values into the list below them. */
static bool append(struct reader *r, size_t n)
{
    value list = top(r)[-(ptrdiff_t)n];
    if (tag_of(list) != LIST)
        return false;
    struct box *box = box_of(r, list);
    if (box->room - box->count < n) { /* a list that grows again moves to a place twice as large */
        size_t room = box->count ? 2 * (box->count + n) : n;
        if (room > UINT32_MAX || !more(r, &r->values, room * sizeof(value)))
            return false;
        size_t first = r->values.used / sizeof(value) - room;
        memcpy((value *)r->values.items + first, items_of(r, box), box->count * sizeof(value));
        box->first = first, box->room = (uint32_t)room;
    }
    r->stack.used -= n * sizeof(value);
    memcpy(items_of(r, box) + box->count, r->stack.items + r->stack.used, n * sizeof(value));
    box->count += (uint32_t)n;
    return true;
}

/* Put the topmost n keys and values into the dict below them, which must be new. */
static bool set_items(struct reader *r, size_t n)
{
    value dict = top(r)[-(ptrdiff_t)n];
    value *items = more(r, &r->values, n * sizeof *items);
    if (tag_of(dict) != DICT || box_of(r, dict)->count || n % 2 || !items)
        return false;
    r->stack.used -= n * sizeof *items;
    memcpy(items, r->stack.items + r->stack.used, n * sizeof *items);
    for (size_t i = 0; i < n; i += 2)
        if (tag_of(items[i]) != TEXT)
            return false;
    struct box *box = box_of(r, dict);
    box->first = r->values.used / sizeof *items - n, box->count = box->room = (uint32_t)n;
    return true;
}

/* How many values lie above the last mark, which is taken away, if there are so many more below it; else SIZE_MAX. */
static size_t unmark(struct reader *r, size_t below)
{
    if (!r->marks.used)
        return SIZE_MAX;
    size_t n = above(r);
    r->marks.used -= sizeof(size_t);
    return above(r) - n < below ? SIZE_MAX : n;
}

/* A number of up to eight bytes. */
INLINE uint64_t little(at p, at end, unsigned bytes)
{
    uint64_t word = 0;
    if (end - p < 8)
        memcpy(&word, p, bytes);
    else
        word = load8(p);
    return bytes < 8 ? word & ~(UINT64_MAX << 8 * bytes) : word;
}

/* Past the opcode at p; NULL where something is not for us. */
INLINE at opcode(struct reader *r, at p, at end)
{
    enum { PUT = 'q', LONG_PUT = 'r', GET = 'h', LONG_GET = 'j', MEMOIZE = 0x94, LONG1 = 0x8a };
    static const uint8_t arguments[256] = {[PUT] = 1, [LONG_PUT] = 4, [GET] = 1, [LONG_GET] = 4, [LONG1] = 1, ['K'] = 1,
        ['M'] = 2, ['J'] = 4, ['G'] = 8, [0x8c] = 1, ['X'] = 4, [0x8d] = 8};
    uint8_t code = *p++, size = arguments[code];
    if (end - p < size)
        return NULL;
    uint64_t argument = little(p, end, size), left = (uint64_t)(end - (p += size));
    size_t n, memos = r->memo.used / sizeof(value);
    value *place;
    bool good = false;
    switch (code) {
    case GET: case LONG_GET:
        good = argument < memos && push(r, ((value *)r->memo.items)[argument]);
        break;
    case PUT: case LONG_PUT: case MEMOIZE:
        if ((code == MEMOIZE || argument == memos) && above(r) && (place = more(r, &r->memo, sizeof *place)))
            *place = *top(r), good = true;
        break;
    case '(':
        if ((place = more(r, &r->marks, sizeof(size_t))))
            *(size_t *)place = depth(r), good = true;
        break;
    case '}': good = push_box(r, DICT, 0); break;
    case ']': good = push_box(r, LIST, 0); break;
    case ')': good = push_box(r, TUPLE, 0); break;
    case 0x85: case 0x86: case 0x87:
        n = code - 0x84u;
        good = above(r) >= n && push_box(r, TUPLE, n);
        break;
    case 't': n = unmark(r, 0), good = n != SIZE_MAX && push_box(r, TUPLE, n); break;
    case 'a': good = above(r) >= 2 && append(r, 1); break;
    case 'e': n = unmark(r, 1), good = n != SIZE_MAX && append(r, n); break;
    case 's': good = above(r) >= 3 && set_items(r, 2); break;
    case 'u': n = unmark(r, 1), good = n != SIZE_MAX && set_items(r, n); break;
    case 'K': case 'M': good = push(r, made(SMALL, (int64_t)argument)); break;
    case 'J': good = push(r, made(SMALL, (int32_t)argument)); break;
    case LONG1:
        n = argument;
        if (n > left || n > 9)
            return NULL;
        argument = little(p, end, n < 8 ? (unsigned)n : 8);
        if (n && n < 8 && p[n - 1] & 0x80)
            argument |= UINT64_MAX << 8 * n;
        good = n < 9 ? push_number(r, (int64_t)argument) : !p[8] && argument >> 60 && push_wide(r, LARGE, argument);
        p += n;
        break;
    case 'G': good = push_wide(r, FLOAT, __builtin_bswap64(argument)); break;
    case 0x8c: case 'X': case 0x8d:
        good = argument <= left && push_text(r, p, argument);
        p += good ? argument : 0;
        break;
    case 'N': good = push(r, made(WORD, NONE)); break;
    case 0x88: good = push(r, made(WORD, YES)); break;
    case 0x89: good = push(r, made(WORD, NO)); break;
    default: break;
    }
    return good ? p : NULL;
}

/* Python loses the rest of a frame when something reaches beyond its end: that is not for us. */
static bool unpickled(struct reader *r, at p, at end)
{
    enum { PROTOCOL = 0x80, FRAME = 0x95 };
    at frame = NULL; /* the end of the one at hand */
    if (end - p < 2 || p[0] != PROTOCOL || p[1] < 2 || p[1] > 5)
        return false;
    for (p += 2; p && p < end;) {
        frame = p == frame ? NULL : frame;
        if (*p == '.')
            return depth(r) == 1 && !r->marks.used;
        if (*p != FRAME) {
            p = opcode(r, p, frame ? frame : end);
            continue;
        }
        if (frame || end - p < 9 || little(p + 1, end, 8) > (uint64_t)(end - p - 9))
            return false;
        frame = p + 9 + little(p + 1, end, 8), p += 9;
    }
    return false;
}

/* ---- the columns --------------------------------------------------------------------------------------------- */

INLINE int64_t doubt(struct reader *r) { return r->unsure = true, 0; }

/* The values of the keys we know; of a key that is there twice the last one. */
static void fields(struct reader *r, value v, value *found)
{
    for (int key = 0; key < KEYS; key++)
        found[key] = made(WORD, MISSING);
    const struct box *box = tag_of(v) == DICT ? box_of(r, v) : NULL;
    if (!box || box->count > MOST_ITEMS) { /* a large one may be meant by each of a million references */
        doubt(r);
        return;
    }
    for (const value *item = items_of(r, box), *end = item + box->count; item < end; item += 2)
        if (inside(item[0]) < KEYS)
            found[inside(item[0])] = item[1];
}

/* The items of a list; none where it is missing. */
static const value *listed(struct reader *r, value v, size_t *count)
{
    *count = 0;
    if (is_word(v, MISSING))
        return NULL;
    if (tag_of(v) != LIST)
        return doubt(r), NULL;
    *count = box_of(r, v)->count;
    return items_of(r, box_of(r, v));
}

/* An integer as 64 bits; 0 where it is missing. large: whether one that needs the sign's bit is allowed. */
static int64_t integer(struct reader *r, value v, bool large)
{
    if (tag_of(v) == SMALL)
        return inside(v);
    int64_t number = tag_of(v) == LARGE ? wide(r, v) : 0;
    return is_word(v, MISSING) || (tag_of(v) == LARGE && (number >= 0 || large)) ? number : doubt(r);
}

static uint64_t address(struct reader *r, value v)
{
    int64_t number = integer(r, v, true);
    return (uint64_t)(tag_of(v) == SMALL && number < 0 ? doubt(r) : number);
}

/* The code of a text, "" where there is none. */
static int32_t numbered(struct reader *r, int kind, value v)
{
    struct numbering *n = &r->numberings[kind];
    int64_t text = tag_of(v) == TEXT ? inside(v) : EMPTY;
    if (tag_of(v) != TEXT && !is_word(v, NONE) && !is_word(v, MISSING))
        doubt(r);
    int32_t *code = (int32_t *)n->codes.items + text;
    if (*code)
        return *code - 1;
    if (((struct entry *)r->texts.entries.items)[text].length > MOST_LENGTH)
        doubt(r);
    int64_t *place = more(r, &n->texts, sizeof *place);
    if (!place)
        return (int32_t)doubt(r);
    *place = text;
    return *code = (int32_t)(n->texts.used / sizeof *place), *code - 1;
}

static int32_t code_of(struct reader *r, struct table *table, const void *bytes, size_t n)
{
    int32_t code = coded(table, (struct text){bytes, n}, 0);
    return code < 0 ? (int32_t)doubt(r) : code;
}

static int32_t pool(struct reader *r, value v, const void *none, size_t length)
{
    if (is_word(v, MISSING) || is_word(v, NONE))
        return code_of(r, &r->pools, none, length);
    const struct box *box = tag_of(v) == TUPLE || tag_of(v) == LIST ? box_of(r, v) : NULL;
    const value *pair = box && box->count == 2 ? items_of(r, box) : NULL;
    if (!pair || tag_of(pair[0]) != SMALL || tag_of(pair[1]) != SMALL)
        return (int32_t)doubt(r);
    return code_of(r, &r->pools, (int64_t[]){inside(pair[0]), inside(pair[1])}, 16);
}

static int32_t frame(struct reader *r, value v)
{
    value found[KEYS];
    if (tag_of(v) == DICT && box_of(r, v)->code >= 0)
        return box_of(r, v)->code;
    fields(r, v, found);
    if (r->unsure)
        return 0;
    struct frame frame = {.file = numbered(r, STRINGS, found[FILENAME]), .line = -1};
    if (tag_of(found[LINE]) == SMALL && inside(found[LINE]) >= 0)
        frame.line = inside(found[LINE]);
    else if (tag_of(found[LINE]) == LARGE && wide(r, found[LINE]) >= 0) /* torch writes 2^64 - 1 where it knows none */
        frame.line = wide(r, found[LINE]);
    frame.name = numbered(r, STRINGS, found[NAME]);
    return box_of(r, v)->code = code_of(r, &r->frames, &frame, sizeof frame);
}

/* The code of a stack; 0 where there is none. */
static int32_t stack(struct reader *r, value v)
{
    int32_t codes[MOST_FRAMES];
    if (is_word(v, MISSING) || is_word(v, NONE))
        return 0;
    struct box *box = tag_of(v) == LIST || tag_of(v) == TUPLE ? box_of(r, v) : NULL;
    if (!box || box->count > MOST_FRAMES)
        return (int32_t)doubt(r);
    if (box->code >= 0)
        return box->code;
    for (uint32_t i = 0; i < box->count; i++)
        codes[i] = frame(r, items_of(r, box)[i]);
    return box->code = code_of(r, &r->stacks, codes, box->count * sizeof *codes);
}

/* Add sizes, whose sum must leave room in 64 bits. */
static void sum(struct reader *r, uint64_t *total, int64_t size)
{
    *total += size < 0 ? -(uint64_t)size : (uint64_t)size;
    r->unsure |= *total >= UINT64_C(1) << 62;
}

static bool says_pools(struct reader *r, const value *events, size_t count)
{
    value found[KEYS];
    for (size_t i = 0; r->pools_said && i < count; i++) {
        fields(r, events[i], found);
        if (!is_word(found[POOL], MISSING))
            return true;
    }
    return false;
}

/* The history of a device, or a part of it. */
static void events(struct reader *r, int32_t device, const value *events, size_t count, bool pools, int64_t *row,
    uint64_t *total)
{
    static const enum known said[] = {METADATA, COMPILE, CATEGORY};
    value v[KEYS];
    int32_t no_pool = pools ? 0 : code_of(r, &r->pools, "", 0);
    for (size_t i = 0; i < count && !r->unsure; i++, ++*row) {
        fields(r, events[i], v);
        int64_t size = integer(r, v[SIZE], false);
        if (is_text(v[ACTION], OOM)) {
            bool is_known = tag_of(v[FREE]) == SMALL || (tag_of(v[FREE]) == LARGE && wide(r, v[FREE]) >= 0);
            int64_t *pair = is_known ? more(r, &r->frees, 2 * sizeof *pair) : NULL;
            if (pair)
                pair[0] = *row, pair[1] = integer(r, v[FREE], false);
            r->unsure |= is_known && !pair;
        } else {
            sum(r, total, size);
        }
        r->unsure |= is_text(v[ACTION], USER);
        r->event.device[*row] = device;
        r->event.action[*row] = numbered(r, ACTIONS, v[ACTION]);
        r->event.stack[*row] = stack(r, v[FRAMES]);
        r->event.pool[*row] = pools ? pool(r, v[POOL], "", 0) : no_pool;
        for (int text = 0; text < 3; text++)
            r->event.said[text][*row] = numbered(r, SAID + text, v[said[text]]);
        r->event.address[*row] = address(r, v[ADDR]);
        r->event.size[*row] = size;
        r->event.stream[*row] = integer(r, v[STREAM], true);
        r->event.time[*row] = integer(r, v[TIME], true);
    }
}

/* A size that a segment says of what it holds: INT64_MIN where it says none, -1 for what is no size. */
static int64_t own_size(struct reader *r, value v)
{
    if (is_word(v, MISSING) || is_word(v, NONE))
        return INT64_MIN;
    if (tag_of(v) != SMALL && tag_of(v) != LARGE)
        return doubt(r);
    int64_t size = tag_of(v) == SMALL ? inside(v) : wide(r, v);
    return size < 0 || size >= INT64_C(1) << 62 ? -1 : size;
}

static void segment(struct reader *r, int64_t row, const value *v, bool on_host, uint64_t *total)
{
    static const enum known own[] = {ALLOCATED, ACTIVE, REQUESTED};
    r->segment.device[row] = on_host ? HOST : integer(r, v[DEVICE], false);
    r->segment.address[row] = address(r, v[ADDRESS]);
    sum(r, total, r->segment.total[row] = integer(r, v[TOTAL], false));
    r->segment.stream[row] = integer(r, v[STREAM], true);
    r->segment.type[row] = numbered(r, STATES, v[TYPE]);
    r->segment.pool[row] = pool(r, v[SEGMENT_POOL], (int64_t[2]){0}, 16);
    r->segment.expandable[row] = is_word(v[EXPANDABLE], YES);
    r->unsure |= tag_of(v[EXPANDABLE]) != WORD || is_word(v[EXPANDABLE], NONE);
    for (int size = 0; size < 3; size++)
        r->segment.own[size][row] = own_size(r, v[own[size]]);
}

/* next: where the block begins if it does not say so. */
static void block(struct reader *r, int64_t row, int64_t owner, value block, uint64_t *next, uint64_t *sizes,
    uint64_t *asked)
{
    value v[KEYS];
    fields(r, block, v);
    r->unsure |= !is_word(v[HISTORY], MISSING) || is_word(v[STATE], NONE); /* the first: of torch 2.0 */
    bool rounded = is_word(v[REQUESTED], MISSING) || is_word(v[REQUESTED], NONE);
    int64_t size = integer(r, v[SIZE], false), requested = rounded ? size : integer(r, v[REQUESTED], false);
    uint64_t start = is_word(v[ADDRESS], MISSING) ? *next : address(r, v[ADDRESS]);
    sum(r, sizes, size), sum(r, asked, requested);
    r->block.segment[row] = owner, r->block.address[row] = start;
    r->block.size[row] = size, r->block.requested[row] = requested;
    r->block.state[row] = numbered(r, STATES, v[STATE]);
    r->block.stack[row] = stack(r, v[FRAMES]);
    r->unsure |= __builtin_add_overflow(start, size, next);
}

INLINE bool is_region(const value *v) { return is_text(v[STAGE], START) || is_text(v[STAGE], END); }

static void annotation(struct reader *r, int64_t row, const value *v)
{
    int64_t device = tag_of(v[DEVICE]) == SMALL ? inside(v[DEVICE]) : -1;
    r->annotation.end[row] = is_text(v[STAGE], END);
    r->annotation.device[row] = device >= 0 && device < MOST_DEVICES ? device : -1;
    r->annotation.name[row] = numbered(r, NAMES, v[NAME]);
    r->annotation.time[row] = integer(r, v[TIME], true);
}

static bool is_long(struct reader *r, value v)
{
    return tag_of(v) == TEXT && ((struct entry *)r->texts.entries.items)[inside(v)].length > MOST_LENGTH;
}

static void setting(struct reader *r, int64_t depth, value key, value v)
{
    bool wide_value = tag_of(v) == LARGE || tag_of(v) == FLOAT;
    struct setting *place = more(r, &r->settings, sizeof *place);
    r->unsure |= !place || tag_of(v) == LIST || tag_of(v) == TUPLE || r->settings.used > MOST_SETTINGS * sizeof *place ||
                 is_long(r, key) || is_long(r, v);
    if (r->unsure)
        return;
    *place = (struct setting){depth, inside(key), tag_of(v), wide_value ? wide(r, v) : inside(v)};
}

/* What is said of the allocator, and by our own recorder: dicts with one more level of them. */
static void settings(struct reader *r, value key, value v)
{
    if (is_word(v, MISSING))
        return;
    setting(r, 0, key, v);
    if (tag_of(v) != DICT) {
        doubt(r);
        return;
    }
    const value *items = items_of(r, box_of(r, v));
    for (uint32_t i = 0; i < box_of(r, v)->count && !r->unsure; i += 2) {
        setting(r, 1, items[i], items[i + 1]);
        const struct box *inner = tag_of(items[i + 1]) == DICT ? box_of(r, items[i + 1]) : NULL;
        for (uint32_t k = 0; inner && k < inner->count && !r->unsure; k += 2) {
            setting(r, 2, items_of(r, inner)[k], items_of(r, inner)[k + 1]);
            r->unsure |= tag_of(items_of(r, inner)[k + 1]) == DICT;
        }
    }
}

/* Whether all items of a list are lists themselves: the histories of pinned memory, one for each allocator. */
static bool is_nested(const value *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (tag_of(items[i]) != LIST)
            return false;
    return true;
}

/* Count the rows. */
static void count(struct reader *r, size_t bytes)
{
    static const enum known lists[] = {TRACES, SEGMENTS, ANNOTATIONS, HOST_TRACES, HOST_SEGMENTS};
    value *top = r->top, v[KEYS];
    size_t n, k, most = 1024 + bytes / 16, histories = 0;
    fields(r, *(value *)r->stack.items, top);
    r->unsure |= is_word(top[SEGMENTS], MISSING) && is_word(top[TRACES], MISSING) && is_word(top[HOST_SEGMENTS], MISSING) &&
                 is_word(top[HOST_TRACES], MISSING);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (is_word(top[lists[i]], NONE))
            top[lists[i]] = made(WORD, MISSING);
    const value *traces = listed(r, top[TRACES], &n);
    r->devices = (int64_t)n;
    for (size_t i = 0; i < n; i++) {
        listed(r, traces[i], &k);
        r->events += (int64_t)k, histories += k > 0;
    }
    const value *host = listed(r, top[HOST_TRACES], &n);
    histories += n > 0;
    if (!is_nested(host, n))
        r->events += (int64_t)n;
    else
        for (size_t i = 0; i < n; i++)
            r->events += box_of(r, host[i])->count;
    for (int on_host = 0; on_host < 2; on_host++) {
        const value *segments = listed(r, top[on_host ? HOST_SEGMENTS : SEGMENTS], &n);
        r->segments += (int64_t)n;
        for (size_t i = 0; i < n && !r->unsure; i++) {
            fields(r, segments[i], v);
            listed(r, v[BLOCKS], &k);
            r->blocks += (int64_t)k;
        }
    }
    const value *marks = listed(r, top[ANNOTATIONS], &n);
    for (size_t i = 0; i < n && !r->unsure; i++) {
        fields(r, marks[i], v);
        r->annotations += is_region(v), r->odd_annotations += !is_region(v);
    }
    r->unsure |= r->devices > MOST_DEVICES || (size_t)r->events > most || (size_t)(r->segments + r->blocks) > most || n > most ||
                 n * (histories ? histories : 1) > 1024 + bytes / 2;
}

/* Read the n bytes of a pickle, which are followed by a NUL, and count the rows. */
bool unpickle_read(struct reader *r, const uint8_t *text, size_t n)
{
    if (n >= UINT32_MAX || !more(r, &r->values, n + 4096)) /* boxes count in 32 bits */
        return false;
    r->values.used = 0;
    for (int i = 0; i < KNOWN; i++)
        if (!push_text(r, (at)known[i], strlen(known[i])))
            return false;
    r->stack.used = 0, r->pools_said = false;
    if (!unpickled(r, text, text + n))
        return false;
    count(r, n);
    return !r->unsure;
}

/* Fill the columns; false: some of it is not for us. */
bool unpickle_fill(struct reader *r)
{
    value v[KEYS];
    const value *top = r->top;
    uint64_t moved = 0, reserved = 0, sizes = 0, asked = 0;
    int64_t row = 0;
    size_t n, k;
    for (int i = 0; i < NUMBERINGS; i++) {
        void *codes = more(r, &r->numberings[i].codes, r->texts.count * sizeof(int32_t));
        if (!codes)
            return false;
        memset(codes, 0, r->numberings[i].codes.used);
    }
    code_of(r, &r->stacks, "", 0);
    const value *traces = listed(r, top[TRACES], &n);
    for (size_t i = 0; i < n; i++) {
        const value *trace = listed(r, traces[i], &k);
        events(r, (int32_t)i, trace, k, says_pools(r, trace, k), &row, &moved);
    }
    const value *host = listed(r, top[HOST_TRACES], &n);
    bool nested = is_nested(host, n), pools = !nested && says_pools(r, host, n);
    for (size_t i = 0; nested && i < n; i++) {
        const value *trace = listed(r, host[i], &k);
        pools |= says_pools(r, trace, k);
    }
    for (size_t i = 0; i < (nested ? n : 1); i++) {
        const value *trace = nested ? listed(r, host[i], &k) : host;
        events(r, HOST, trace, nested ? k : n, pools, &row, &moved);
    }
    int64_t owner = 0, place = 0;
    for (int on_host = 0; on_host < 2; on_host++) {
        const value *segments = listed(r, top[on_host ? HOST_SEGMENTS : SEGMENTS], &n);
        for (size_t i = 0; i < n && !r->unsure; i++, owner++) {
            fields(r, segments[i], v);
            segment(r, owner, v, on_host, &reserved);
            uint64_t next = r->segment.address[owner];
            const value *blocks = listed(r, v[BLOCKS], &k);
            for (size_t b = 0; b < k && !r->unsure; b++)
                block(r, place++, owner, blocks[b], &next, &sizes, &asked);
        }
    }
    row = 0;
    const value *marks = listed(r, top[ANNOTATIONS], &n);
    for (size_t i = 0; i < n && !r->unsure; i++) {
        fields(r, marks[i], v);
        if (is_region(v))
            annotation(r, row++, v);
    }
    settings(r, made(TEXT, SETTINGS), top[SETTINGS]);
    settings(r, made(TEXT, KIT), top[KIT]);
    bool few = r->pools.count <= MOST_NAMES;
    for (int i = ACTIONS; i <= STATES; i++)
        few &= r->numberings[i].texts.used <= MOST_NAMES * sizeof(int64_t);
    return few && !r->unsure;
}

/* most: bytes that may be held beside the columns. */
struct reader *unpickle_new(size_t most)
{
    struct reader *r = calloc(1, sizeof *r);
    if (r)
        r->most = most;
    return r;
}

void unpickle_free(struct reader *r)
{
    struct table *tables[] = {&r->texts, &r->frames, &r->stacks, &r->pools};
    struct list *lists[] = {&r->frees, &r->settings, &r->stack, &r->marks, &r->memo, &r->values, &r->boxes, &r->wide};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        free(tables[i]->arena.items), free(tables[i]->entries.items), free(tables[i]->slots);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        free(lists[i]->items);
    for (int i = 0; i < NUMBERINGS; i++)
        free(r->numberings[i].codes.items), free(r->numberings[i].texts.items);
    free(r);
}
