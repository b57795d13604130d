/*
 * One line of the protocol (README.md) taken apart, and the escapes both
 * directions use. Pure: no I/O, no allocation, no state. What a request may
 * do in which state is session-requests.c's business.
 */
#ifndef FREEZER_REQUEST_H
#define FREEZER_REQUEST_H

#include <stddef.h>
#include <stdint.h>

enum {
	LINE_MAX_BYTES = 8192, /* with its newline */
	ID_MAX_BYTES = 128,    /* a session id, unescaped */
	OWNER_MAX_BYTES = 256,
	PATH_MAX_BYTES = 4095,
};

enum verb {
	VERB_HELLO,
	VERB_PLAN,
	VERB_FS,
	VERB_SYNC,
	VERB_FREEZE,
	VERB_RENEW,
	VERB_CRITICAL_ON,
	VERB_CRITICAL_OFF,
	VERB_THAW,
	VERB_STATUS,
	VERB_HUNG,
};

struct request {
	enum verb verb;
	const char *session; /* plan */
	const char *owner;   /* plan */
	const char *path;    /* fs */
	uint64_t lease_ms;   /* freeze, renew; plan: LEASE_MAX_MS */
	uint64_t budget_ms;  /* plan, sync */
	uint64_t limit_ms;   /* freeze; 0: none */
	uint64_t bound_ms;   /* critical on */
	int expedite;        /* plan */
	uint32_t group;      /* fs */
	uint64_t mount_id;   /* fs */
	uint32_t major, minor;
};

/*
 * Takes `line` (LENGTH bytes, without its newline, one byte of room behind it)
 * apart in place: the strings of `out` point into it. Returns NULL, or what is
 * wrong with it in words.
 */
const char *request_parse(char *line, size_t length, struct request *out);

/* 0 or -1. Takes decimal digits only: no sign, no space, at most 18 of them. */
int parse_decimal(const char *text, uint64_t *out);
int parse_device(const char *text, uint32_t *major, uint32_t *minor);

/* Undoes `\ooo` in place; NULL if the text holds anything that is not allowed in a word, or a NUL. */
char *word_unescape(char *word);

/* Writes TEXT as one word, cut off after whole characters if it does not fit. Returns `out`. */
char *word_escape(const char *text, char *out, size_t size);

#endif
