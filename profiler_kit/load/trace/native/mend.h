/* Mend the text of one malformed event exactly as repair.py's mend() does: the same candidates in the same order, made
 * by the same rules. Where a rule asks what only Python knows (Unicode's white space), the event is in doubt, and is
 * left to repair.py.
 *
 * Every text here is followed by a NUL byte.
 */
#pragma once

#include <strings.h>

#include "json.h"

enum verdict { SOUND, BROKEN, CUT, DOUBTFUL }; /* CUT: as one text it is broken, but more may make it whole */
enum { DEEPEST_CHECKED = 60 };

struct draft { /* a text that is being made */
    struct list text;
    bool doubt, failed; /* failed: no memory */
};

INLINE at plain(at p, at end)
{
    uint64_t seen = 0;
    return unmarked(p, end, &seen);
}

/* To the first quote or backslash from p on; the end if there is none. */
INLINE at mark_in(at p, at end)
{
    while ((p = plain(p, end)) < end && *p < 0x20)
        p++;
    return p < end ? p : end;
}

/* ---- whether a text is JSON ------------------------------------------------------------------------------------ */

struct check {
    at end, place; /* place: of the first byte that is wrong */
    bool doubt; /* of what was passed: a number out of range */
    bool cut, deep; /* it ends before it is whole; too deep to tell */
};

static at checked(struct check *c, at p, int depth);

/* Past the string at p; else where it is broken, with *broken set. */
static at checked_string(struct check *c, at p, bool *broken)
{
    for (p = plain(p + 1, c->end); p < c->end && *p != '"'; p = plain(p, c->end)) {
        if (*p < 0x20)
            return *broken = true, p;
        at after = escape(p);
        if (!after)
            return *broken = true, p + 1;
        p = after;
    }
    return p + 1;
}

static at checked_number(struct check *c, at p, bool *broken)
{
    p += *p == '-';
    at first = p;
    while (digit(p) <= 9)
        p++;
    if (p == first || (*first == '0' && p > first + 1))
        return *broken = true, p == first ? p : first + 1;
    if (*p == '.') {
        at dot = ++p;
        while (digit(p) <= 9)
            p++;
        if (p == dot)
            return *broken = true, p;
    }
    c->doubt |= p - first > 100;
    if ((*p | 32) == 'e') {
        p += p[1] == '-' || p[1] == '+' ? 2 : 1;
        at power = p;
        while (digit(p) <= 9)
            p++;
        if (p == power)
            return *broken = true, p;
        c->doubt |= p - power > 2;
    }
    return p;
}

static at wrong(struct check *c, at p)
{
    c->place = p, c->cut |= p >= c->end;
    return NULL;
}

/* Past the key at p and its colon; NULL: it is broken, or cut off. */
static at checked_key(struct check *c, at p)
{
    bool broken = false;
    if (*p != '"')
        return wrong(c, p);
    p = checked_string(c, p, &broken);
    if (broken || p > c->end)
        return wrong(c, p);
    p = space(p);
    return *p == ':' ? space(p + 1) : wrong(c, p);
}

/* Past the value at p; NULL: it is broken, or cut off. */
static at checked(struct check *c, at p, int depth)
{
    bool broken = false;
    if (*p == '"') {
        p = checked_string(c, p, &broken);
    } else if (*p == '{' || *p == '[') {
        uint8_t close = *p == '{' ? '}' : ']';
        if (depth == DEEPEST_CHECKED)
            return c->deep = true, NULL;
        p = space(p + 1);
        for (bool first = true; *p != close || !first; first = false) {
            if (close == '}' && !(p = checked_key(c, p)))
                return NULL;
            if (!(p = checked(c, p, depth + 1)))
                return NULL;
            p = space(p);
            if (*p == close)
                break;
            if (*p != ',')
                return wrong(c, p);
            p = space(p + 1);
        }
        p++;
    } else if (*p == 't' || *p == 'f' || *p == 'n') {
        const char *text = *p == 't' ? "true" : *p == 'f' ? "false" : "null";
        for (; *text && *p == (uint8_t)*text; text++)
            p++;
        broken = *text;
    } else {
        p = checked_number(c, p, &broken);
    }
    return broken || p > c->end ? wrong(c, p) : p;
}

/* The first byte that is wrong, whatever follows it: of the member of an object at p, or right behind it. NULL: none. */
static at wrong_in_member(at p, at end)
{
    struct check c = {.end = end};
    at after = checked_key(&c, p);
    if (after && (after = checked(&c, after, 1))) {
        after = space(after);
        return after < end && !strchr(",}]", *after) ? after : NULL;
    }
    return c.cut || c.deep ? NULL : c.place;
}

/* Whether the text is one JSON value (whole), or as many as there are with commas between them, the first of a list. */
static enum verdict verdict(at text, at end, bool whole)
{
    struct check c = {.end = end};
    for (at p = text;; p = space(p + 1)) {
        p = checked(&c, p, 0);
        if (!p) /* whatever was passed before */
            return c.deep ? DOUBTFUL : !c.cut || whole ? BROKEN : CUT;
        p = space(p);
        if (p >= end)
            return c.doubt ? DOUBTFUL : SOUND;
        if (*p != ',' || whole)
            return *p == ']' && !whole && space(p + 1) >= end ? DOUBTFUL : BROKEN;
    }
}

/* ---- what repair.py does --------------------------------------------------------------------------------------- */

/* Begin a draft of a text of n bytes. No rule makes more than three bytes of one. False without memory. */
static bool begin(struct draft *d, size_t n)
{
    d->text.used = 0;
    d->failed |= !added(&d->text, 3 * n + 8);
    d->text.used = 0;
    return !d->failed;
}

INLINE void put(struct draft *d, const void *bytes, size_t n)
{
    memcpy(d->text.items + d->text.used, bytes, n);
    d->text.used += n;
}

static void finish(struct draft *d) { d->text.items[d->text.used] = 0; }

/* Past white space. Where Python's str may know more of it, that is a doubt. */
INLINE at blank(struct draft *d, at p)
{
    p = space(p);
    d->doubt |= *p >= 0x80 || (*p && *p < 0x20) || (*p == 0);
    return p;
}

/* As bytes.decode("utf-8", "replace"). */
static void decoded(struct draft *d, at p, at end)
{
    if (!begin(d, (size_t)(end - p)))
        return;
    while (p < end) {
        at first = p;
        while (end - p >= 8 && !(load8(p) & UINT64_C(0x8080808080808080)))
            p += 8;
        put(d, first, (size_t)(p - first));
        if (p == end)
            break;
        bool good;
        first = p, p = character(p, end, &good);
        if (good)
            put(d, first, (size_t)(p - first));
        else
            put(d, "\xEF\xBF\xBD", 3);
    }
    finish(d);
}

/* _mend_tokens, of a string: no control characters, no half of a surrogate pair. Whether that changed anything. */
static bool put_string(struct draft *d, at p, at end)
{
    bool changes = false;
    for (at first = p; p < end;) {
        at run = p;
        p = plain(p, end);
        p = p < end ? p : end;
        put(d, run, (size_t)(p - run));
        if (p == end)
            return changes;
        bool high = end - p >= 6 && is_half(p, false);
        bool half = high ? end - p < 12 || !is_half(p + 6, true)
                         : end - p >= 6 && is_half(p, true) && !(p - first >= 6 && is_half(p - 6, false));
        changes |= half || *p < 0x20;
        if (half) {
            put(d, "\\ufffd", 6);
            p += 6;
        } else {
            put(d, *p < 0x20 ? (at)" " : p, 1);
            p++;
        }
    }
    return changes;
}

/* The length of the bare word at p that is no JSON, or that is written otherwise; 0: there is none. */
static size_t bare(struct draft *d, at p)
{
    static const char *const words[] = {"nan", "inf", "infinity", "n/a", "none", "undefined", "true", "false"};
    size_t sign = *p == '-' || *p == '+';
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i]);
        if (strncasecmp((const char *)p + sign, words[i], length))
            continue;
        at after = blank(d, p + sign + length);
        if (*after == ',' || *after == '}' || *after == ']')
            return sign + length;
    }
    return 0;
}

/* What outside() looks at. */
static const bool telling[256] = {
    [0 ... 8] = true, [11 ... 12] = true, [14 ... 31] = true, [128 ... 255] = true, ['"'] = true, [','] = true,
    ['-'] = true, ['+'] = true, ['n'] = true, ['i'] = true, ['u'] = true, ['t'] = true, ['f'] = true,
    ['N'] = true, ['I'] = true, ['U'] = true, ['T'] = true, ['F'] = true,
};

/* _mend_tokens: what is not in strings; whether that changed anything, or may. first: a place before which there is nothing to
 * mend; last: one behind which nothing matters, unless something changes before it. */
static bool outside(struct draft *d, at text, at end, at first, at last)
{
    at p = first, done = text; /* up to here it is written */
    if (!begin(d, (size_t)(end - text)))
        return false;
    while (p < end && !d->doubt && (p <= last || done > text)) {
        at token = p;
        size_t word;
        if (!telling[*p]) {
            do /* what follows the text is a NUL, which tells */
                p++;
            while (!telling[*p]);
        } else if (*p == '"') {
            p = plain(p + 1, end);
            bool changes = p < end && *p != '"';
            while (p < end && *p != '"')
                p = mark_in(p + (*p == '\\' && p + 1 < end ? 2 : 1), end);
            p += p < end;
            size_t used = d->text.used;
            if (changes)
                put(d, done, (size_t)(token - done));
            if (changes && put_string(d, token, p))
                done = p;
            else
                d->text.used = used;
        } else if (*p == ',') {
            at after = blank(d, ++p);
            if (*after == '}' || *after == ']') {
                put(d, done, (size_t)(token - done));
                done = p;
            }
        } else if ((word = bare(d, p))) {
            bool is_true = word == 4 && !strncasecmp((const char *)p, "true", 4);
            bool is_false = word == 5 && !strncasecmp((const char *)p, "false", 5);
            const char *text = is_true ? "true" : is_false ? "false" : "null";
            p += word;
            if (strncmp((const char *)token, text, word)) {
                put(d, done, (size_t)(token - done));
                put(d, text, strlen(text));
                done = p;
            }
        } else {
            d->doubt |= *p >= 0x80 || *p < 0x20;
            p++;
        }
    }
    put(d, done, (size_t)(p - done));
    finish(d);
    return done > text || d->doubt;
}

/* Past one of the keys of an event behind the quote at p, and its colon; NULL: another text. */
static at event_key(at p, const char *keys)
{
    for (; *keys; keys += strlen(keys) + 1) {
        size_t length = 0;
        while (keys[length] && p[length] == (uint8_t)keys[length])
            length++;
        if (!keys[length] && p[length] == '"')
            return p + length + 1;
    }
    return NULL;
}

/* _mend_name: escape what is inside the name. Whether that changed anything. */
static bool mend_name(struct draft *d, at text, at end)
{
    at p = text, name = NULL, last = NULL;
    if (!begin(d, (size_t)(end - text)))
        return false;
    for (; !name && (p = memchr(p, '"', (size_t)(end - p))); p++) {
        if (strncmp((const char *)p, "\"name\"", 6))
            continue;
        at colon = blank(d, p + 6);
        at quote = *colon == ':' ? blank(d, colon + 1) : colon;
        if (*colon == ':' && *quote == '"')
            name = quote + 1;
    }
    for (p = name; name && !last && (p = memchr(p, '"', (size_t)(end - p))); p++) {
        at after = p + 1 < end ? blank(d, p + 1) : p + 1;
        if (*after == ',') {
            at key = blank(d, after + 1);
            at behind = *key == '"' ? event_key(key + 1, "ph\0cat\0pid\0tid\0ts\0dur\0id\0s\0bp\0args\0") : NULL;
            if (behind && *blank(d, behind) == ':')
                last = p;
        } else if (*after == '}' && space(after + 1) >= end) {
            last = p;
        }
    }
    if (!name || !last)
        return false;
    put(d, text, (size_t)(name - text));
    for (p = name; p < last; p++) {
        if (*p == '\\' || *p == '"')
            put(d, "\\", 1);
        put(d, p, 1);
    }
    put(d, last, (size_t)(end - last));
    finish(d);
    return d->text.used != (size_t)(end - text); /* it only adds */
}

/* _AFTER_VALUE and, of what may be a key, _AFTER_KEY: whether what follows the quote before p may follow a string. */
static bool ends_string(struct draft *d, at p, at end, bool key)
{
    static const char *const words[] = {"true", "false", "null", "NaN", "N/A"};
    if (space(p) >= end)
        return true;
    p = blank(d, p);
    if ((key && *p == ':') || *p == '}' || *p == ']')
        return true;
    if (*p != ',')
        return false;
    p = space(p + 1);
    d->doubt |= *p >= 0x80 || (*p && *p < 0x20);
    if (*p && (strchr("\"[{}]-", *p) || digit(p) <= 9))
        return true;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strncmp((const char *)p, words[i], strlen(words[i])))
            return true;
    return false;
}

/* _mend_strings: escape lone backslashes, and quotes inside a string. Whether that changed anything. first: a key before
 * which all is JSON, or the beginning. */
static bool mend_strings(struct draft *d, at text, at end, at first)
{
    at done = text, written = text, escaped = NULL;
    bool inside = false, key = false;
    if (!begin(d, (size_t)(end - text)))
        return false;
    for (at p = mark_in(first, end); p < end && !d->doubt; p = mark_in(p + 1, end)) {
        if (p == escaped)
            continue;
        bool lone = false;
        if (*p == '\\') {
            bool follows = inside && p[1] && strchr("\"\\/bfnrt", p[1]);
            if (inside && p[1] == 'u')
                follows = hex_digit(p + 2) <= 15 && hex_digit(p + 3) <= 15 && hex_digit(p + 4) <= 15 && hex_digit(p + 5) <= 15;
            lone = inside && !follows;
            escaped = follows ? p + 1 : NULL;
        } else if (!inside) {
            at before = p;
            while (before > done && (before[-1] == ' ' || before[-1] == '\n' || before[-1] == '\r' || before[-1] == '\t'))
                before--;
            d->doubt |= before > done && (before[-1] >= 0x80 || before[-1] < 0x20);
            key = before > done && (before[-1] == '{' || before[-1] == ',');
            inside = true;
            done = p;
        } else if (ends_string(d, p + 1, end, key)) {
            inside = false;
        } else {
            lone = true;
        }
        if (lone) {
            put(d, written, (size_t)(p - written));
            put(d, "\\", 1);
            done = written = p;
        }
    }
    if (written == text)
        return false;
    put(d, written, (size_t)(end - written));
    finish(d);
    return true;
}

/* closing_bracket(): behind the bracket that closes the one at p; NULL: it has not come. */
static at closed(at p, at end)
{
    for (int64_t depth = 0; p < end; p++) {
        if (*p == '"') {
            p = mark_in(p + 1, end);
            while (p < end && *p != '"')
                p = mark_in(p + 2 < end ? p + 2 : end, end);
        } else if (*p == '{' || *p == '[') {
            depth++;
        } else if ((*p == '}' || *p == ']') && --depth <= 0) {
            return p + 1;
        }
    }
    return NULL;
}
