/* Strict JSON, as the decoder has it: what scan.c reads events with, and mend.h proves its texts with.
 *
 * The text is followed by a NUL byte. No loop below passes a NUL, so each ends by itself and need not compare with the
 * end of the text for every byte.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "ending() finds the first of eight bytes in the low bits of a word"
#endif

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

struct number { /* value / 10^places, if it has no exponent and at most 19 digits; no digits: none is there */
    uint64_t value;
    uint32_t digits, places;
    bool minus, exponent, is_null;
};

/* Room for so many more bytes. */
static void *added(struct list *list, size_t bytes)
{
    if (!list->items || list->room - list->used < bytes) {
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

INLINE at space(at p)
{
    while (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')
        p++;
    return p;
}

/* As space, where most lines are indented by less than eight blanks. */
INLINE at indent(at p, at end)
{
    if (*p > ' ')
        return p;
    if (*p == '\n' && end - p > 8) {
        uint64_t other = load8(p + 1) ^ UINT64_C(0x2020202020202020);
        p += 1 + (other ? __builtin_ctzll(other) >> 3 : 8);
    }
    return space(p);
}

INLINE unsigned digit(at p) { return *p - (unsigned)'0'; } /* above 9: it is none */

INLINE unsigned hex_digit(at p) /* above 15: it is none */
{
    unsigned letter = (*p | 32u) - 'a';
    return digit(p) <= 9 ? digit(p) : letter <= 5 ? letter + 10 : 16;
}

/* The first of so many bytes that is a quote, a backslash or below 0x20; WIDTH if there is none. *seen gets bits that
 * are high if one of them is beyond ASCII. */
#ifdef __SSE2__
enum { WIDTH = 16 };
INLINE unsigned special(at p, uint64_t *seen)
{
    __m128i bytes = _mm_loadu_si128((const __m128i *)p), quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"'));
    __m128i back = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\'));
    __m128i low = _mm_cmpeq_epi8(bytes, _mm_min_epu8(bytes, _mm_set1_epi8(0x1F)));
    *seen |= (uint64_t)_mm_movemask_epi8(bytes) << 1;
    unsigned found = (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, back), low));
    return found ? (unsigned)__builtin_ctz(found) : WIDTH;
}
#else
enum { WIDTH = 8 };
INLINE unsigned special(at p, uint64_t *seen) /* Mycroft's trick: exact for the lowest such byte */
{
    const uint64_t ones = UINT64_C(0x0101010101010101), high = ones << 7;
    uint64_t w = load8(p), quote = w ^ (ones * '"'), back = w ^ (ones * '\\');
    uint64_t found = (((quote - ones) & ~quote) | ((back - ones) & ~back) | ((w - ones * 0x20) & ~w)) & high;
    *seen |= w & high;
    return found ? (unsigned)__builtin_ctzll(found) >> 3 : WIDTH;
}
#endif

/* To the first quote, backslash or control character from p on. */
INLINE at unmarked(at p, at end, uint64_t *seen)
{
    for (unsigned first = WIDTH; first == WIDTH && end - p >= WIDTH; p += first)
        first = special(p, seen);
    while (*p != '"' && *p != '\\' && *p >= 0x20)
        *seen |= *p++ & 0x80;
    return p;
}

/* Half of a surrogate pair as an escape: the high one, or the low one, which comes second. */
INLINE bool is_half(at p, bool low)
{
    if (p[0] != '\\' || p[1] != 'u' || (p[2] | 32) != 'd' || hex_digit(p + 3) > 15 || hex_digit(p + 4) > 15)
        return false;
    return hex_digit(p + 5) <= 15 && hex_digit(p + 3) >= 8 && (hex_digit(p + 3) >= 12) == low;
}

/* Past the escape whose backslash is at p. Of surrogates only pairs mean something. */
static at escape(at p)
{
    if (p[1] != 'u')
        return p[1] && strchr("\"\\/bfnrt", p[1]) ? p + 2 : NULL;
    if (is_half(p, false))
        return is_half(p + 6, true) ? p + 12 : NULL;
    for (int i = 2; i < 6; i++)
        if (hex_digit(p + i) > 15)
            return NULL;
    return is_half(p, true) ? NULL : p + 6;
}

/* Past the quote that ends the string whose quote is at p. *seen gets bits that are high if it holds more than ASCII,
 * and bit 0 if it holds an escape. */
INLINE at ending(at p, at end, uint64_t *seen)
{
    *seen = 0;
    if (*p++ != '"')
        return NULL;
    for (;;) {
        p = unmarked(p, end, seen);
        if (*p == '"')
            return p + 1;
        *seen |= 1;
        if (*p != '\\' || !(p = escape(p)))
            return NULL;
    }
}

/* Past the character at p. If it is no UTF-8, past what bytes.decode("utf-8", "replace") makes one replacement of. */
static at character(at p, at end, bool *good)
{
    uint8_t c = *p++;
    int more = c < 0xC2 || c > 0xF4 ? 0 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;
    uint8_t least = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80, most = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    *good = c < 0x80 || more;
    for (; more; more--, p++, least = 0x80, most = 0xBF)
        if (p >= end || *p < least || *p > most)
            return *good = false, p;
    return p;
}

static bool is_utf8(at p, at end)
{
    bool good = true;
    while (p < end && good)
        p = *p < 0x80 ? p + 1 : character(p, end, &good);
    return good;
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
