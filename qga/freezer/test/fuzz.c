/*
 * Feeds the request parser with random bytes and with mutations of good lines;
 * the sanitizers watch. What is accepted must hold to the limits, and must be
 * accepted again when written in the plain form. `fuzz COUNT SEED`: the same
 * seed gives the same lines.
 */
#include "check.h"
#include "request.h"

#include <string.h>

char scratch[1];
static uint64_t state;

static uint32_t chance(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)((state >> 11) % below);
}

static const char *const good[] = {
	"hello",
	"status",
	"thaw",
	"plan session the\\040owner 60000 15000 1",
	"plan s \\ 1 1 0",
	"sync 60000",
	"freeze 10000",
	"freeze 10000 8000",
	"fs 0 42 254:1 /",
	"fs 7 29 0:0 /srv/a\\040b\\134c",
	"renew 10000",
	"critical on 5000",
	"critical off",
};
static const char alphabet[] = " \\0123456789:/abcdefghijklmnopqrstuvwxyz-+\t\n\r\x7f\x80\xff";

static size_t make(char *line)
{
	size_t length = 0;

	if (chance(8) == 0) {
		length = chance(chance(50) == 0 ? LINE_MAX_BYTES : 80);
		for (size_t i = 0; i < length; i++)
			line[i] = (char)chance(256);
		return length;
	}
	strcpy(line, good[chance(sizeof good / sizeof *good)]);
	length = strlen(line);
	for (uint32_t changes = chance(4); changes > 0; changes--) {
		size_t at = chance((uint32_t)length + 1);

		switch (chance(4)) {
		case 0: /* replace */
			if (at < length)
				line[at] = alphabet[chance(sizeof alphabet)];
			break;
		case 1: /* insert */
			memmove(line + at + 1, line + at, length - at);
			line[at] = alphabet[chance(sizeof alphabet)];
			length++;
			break;
		case 2: /* delete */
			if (at < length)
				memmove(line + at, line + at + 1, --length - at);
			break;
		default: /* a piece of another one */
			if (length < 200) {
				const char *other = good[chance(sizeof good / sizeof *good)];
				size_t from = chance((uint32_t)strlen(other)), more = strlen(other) - from;

				memmove(line + at + more, line + at, length - at);
				memcpy(line + at, other + from, more);
				length += more;
			}
		}
	}
	return length;
}

static void hold_to_limits(const struct request *r)
{
	char word[4 * PATH_MAX_BYTES + 1], copy[PATH_MAX_BYTES + 1];

	if (r->verb == VERB_PLAN) {
		CHECK(strlen(r->session) >= 1 && strlen(r->session) <= ID_MAX_BYTES);
		CHECK(strlen(r->owner) <= OWNER_MAX_BYTES);
		CHECK(r->expedite == 0 || r->expedite == 1);
	}
	if (r->verb == VERB_FS) {
		CHECK(r->path[0] == '/' && strlen(r->path) <= PATH_MAX_BYTES);
		strcpy(copy, r->path);
		CHECK(strcmp(word_unescape(word_escape(copy, word, sizeof word)), r->path) == 0);
	}
	CHECK(r->lease_ms < 1000000000000000000u && r->budget_ms < 1000000000000000000u);
	CHECK(r->limit_ms < 1000000000000000000u && r->bound_ms < 1000000000000000000u);
}

int main(int words, char **word)
{
	unsigned long count = words > 1 ? strtoul(word[1], NULL, 10) : 100000, accepted = 0;

	state = (words > 2 ? strtoull(word[2], NULL, 10) : 1) * 0x9e3779b97f4a7c15u + 1;
	for (unsigned long i = 0; i < count; i++) {
		/* Exactly as long as promised: a byte beyond is an error to AddressSanitizer. */
		static char made[LINE_MAX_BYTES + 512];
		size_t length = make(made);
		char *line = malloc(length + 1);
		struct request request;

		CHECK(line != NULL);
		memcpy(line, made, length);
		if (request_parse(line, length, &request) == NULL) {
			accepted++;
			hold_to_limits(&request);
		}
		free(line);
	}
	printf("%lu lines: %lu accepted, %lu rejected\n", count, accepted, count - accepted);
	CHECK(count < 1000 || (accepted > count / 100 && accepted < count));
	return 0;
}
