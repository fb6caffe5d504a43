/* Mend the text of one malformed event exactly as repair.py's mend() does: the same candidates in the same order, made
 * by the same rules. Where a rule asks what only Python knows (Unicode's white space), the event is in doubt, and is
 * left to repair.py.
 *
 * Every text here is followed by a NUL byte.
 */
#pragma once

#include <strings.h>

#include "json.h"

enum verdict { SOUND, BROKEN, DOUBTFUL };
enum { DEEPEST_CHECKED = 60 };

struct draft { /* a text that is being made */
    struct list text;
    bool doubt, failed; /* failed: no memory */
};

/* ---- whether a text is JSON ------------------------------------------------------------------------------------ */

struct check {
    at end;
    bool doubt; /* of what was passed: a number out of range */
    bool cut, deep; /* it ends before it is whole; too deep to tell */
};

static at checked(struct check *c, at p, int depth);

/* Past the string at p; else where it is broken, with *broken set. */
static at checked_string(struct check *c, at p, bool *broken)
{
    for (p++; p < c->end && *p != '"'; p++) {
        if (*p < 0x20)
            return *broken = true, p;
        if (*p != '\\')
            continue;
        at after = escape(p);
        if (!after)
            return *broken = true, p + 1;
        p = after - 1;
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
            if (close == '}') {
                if (*p != '"')
                    return c->cut |= p >= c->end, NULL;
                p = checked_string(c, p, &broken);
                if (broken || p > c->end)
                    return c->cut |= p >= c->end, NULL;
                p = space(p);
                if (*p != ':')
                    return c->cut |= p >= c->end, NULL;
                p = space(p + 1);
            }
            if (!(p = checked(c, p, depth + 1)))
                return NULL;
            p = space(p);
            if (*p == close)
                break;
            if (*p != ',')
                return c->cut |= p >= c->end, NULL;
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
    if (broken || p > c->end)
        return c->cut |= p >= c->end, NULL;
    return p;
}

/* Whether the text is one JSON value. whole: no other text follows; else what may follow is a doubt. */
static enum verdict verdict(at text, at end, bool whole)
{
    struct check c = {.end = end};
    at p = checked(&c, text, 0);
    if (!p) /* whatever was passed before */
        return c.deep || (c.cut && !whole) ? DOUBTFUL : BROKEN;
    p = space(p);
    if (p < end)
        return whole ? BROKEN : DOUBTFUL;
    return c.doubt ? DOUBTFUL : SOUND;
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
static at blank(struct draft *d, at p)
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
        uint8_t c = *p++;
        int more = c < 0xC2 || c > 0xF4 ? 0 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
        uint8_t least = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80, most = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
        bool good = c < 0x80 || more;
        for (; more; more--, p++, least = 0x80, most = 0xBF)
            if (p >= end || *p < least || *p > most) {
                good = false;
                break;
            }
        if (good)
            put(d, first, (size_t)(p - first));
        else
            put(d, "\xEF\xBF\xBD", 3);
    }
    finish(d);
}

/* _mend_token of a string: no control characters, no half of a surrogate pair. */
static void put_string(struct draft *d, at p, at end)
{
    for (at first = p; p < end; p++) {
        if (*p < 0x20) {
            put(d, " ", 1);
            continue;
        }
        if (*p != '\\') {
            put(d, p, 1);
            continue;
        }
        bool high = end - p >= 6 && is_half(p, false);
        bool half = high ? end - p < 12 || !is_half(p + 6, true)
                         : end - p >= 6 && is_half(p, true) && !(p - first >= 6 && is_half(p - 6, false));
        if (half) {
            put(d, "\\ufffd", 6);
            p += 5;
        } else {
            put(d, p, 1);
        }
    }
}

/* The length of the bare word at p that is no JSON, or that is written otherwise; 0: there is none. */
static size_t bare(struct draft *d, at p)
{
    static const char *const words[] = {"nan", "inf", "infinity", "n/a", "none", "undefined", "true", "false"};
    size_t sign = *p == '-' || *p == '+';
    if (!p[sign] || !strchr("niutfNIUTF", p[sign]))
        return 0;
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

/* _OUTSIDE and _CONTROL_BETWEEN: what is not in strings. */
static void outside(struct draft *d, at p, at end)
{
    if (!begin(d, (size_t)(end - p)))
        return;
    while (p < end && !d->doubt) {
        size_t word;
        if (*p == '"') {
            at after = p + 1;
            for (; after < end && *after != '"'; after++)
                after += *after == '\\' && after + 1 < end;
            after += after < end;
            put_string(d, p, after);
            p = after;
        } else if (*p == ',') {
            at after = blank(d, p + 1);
            if (*after != '}' && *after != ']')
                put(d, p, 1);
            p++;
        } else if ((word = bare(d, p))) {
            bool is_true = word == 4 && !strncasecmp((const char *)p, "true", 4);
            bool is_false = word == 5 && !strncasecmp((const char *)p, "false", 5);
            const char *text = is_true ? "true" : is_false ? "false" : "null";
            put(d, text, strlen(text));
            p += word;
        } else {
            d->doubt |= *p >= 0x80 || (*p < 0x20 && *p != '\t' && *p != '\n' && *p != '\r');
            put(d, p++, 1);
        }
    }
    finish(d);
}

/* Past one of the keys of an event behind the quote at p, and its colon; NULL: another text. */
static at event_key(at p, const char *keys)
{
    for (; *keys; keys += strlen(keys) + 1) {
        size_t length = strlen(keys);
        if (!strncmp((const char *)p, keys, length) && p[length] == '"')
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
    for (; p < end && !name; p++) {
        if (strncmp((const char *)p, "\"name\"", 6))
            continue;
        at colon = blank(d, p + 6);
        at quote = *colon == ':' ? blank(d, colon + 1) : colon;
        if (*colon == ':' && *quote == '"')
            name = quote + 1;
    }
    for (p = name; name && p < end && !last; p++) {
        if (*p != '"')
            continue;
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

/* _mend_strings: escape lone backslashes, and quotes inside a string. Whether that changed anything. */
static bool mend_strings(struct draft *d, at text, at end)
{
    at done = text, escaped = NULL;
    bool inside = false, key = false;
    if (!begin(d, (size_t)(end - text)))
        return false;
    for (at p = text; p < end && !d->doubt; p++) {
        if ((*p != '"' && *p != '\\') || p == escaped)
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
            put(d, done, (size_t)(p - done));
            done = p;
        } else if (ends_string(d, p + 1, end, key)) {
            inside = false;
        } else {
            lone = true;
        }
        if (lone) {
            put(d, done, (size_t)(p - done));
            put(d, "\\", 1);
            done = p;
        }
    }
    put(d, done, (size_t)(end - done));
    finish(d);
    return d->text.used != (size_t)(end - text);
}

/* closing_bracket(): whether the bracket that the text begins with is closed in it. */
static bool is_closed(at p, at end)
{
    for (int64_t depth = 0; p < end; p++) {
        if (*p == '"') {
            for (p++; p < end && *p != '"'; p++)
                p += *p == '\\';
        } else if (*p == '{' || *p == '[') {
            depth++;
        } else if ((*p == '}' || *p == ']') && --depth <= 0) {
            return true;
        }
    }
    return false;
}
