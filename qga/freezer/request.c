/* See request.h and "The freezer's protocol" in README.md. */
#include "request.h"

#include <string.h>

int parse_decimal(const char *text, uint64_t *out)
{
	uint64_t value = 0;
	size_t digits = 0;

	for (; text[digits] >= '0' && text[digits] <= '9'; digits++) {
		if (digits == 18)
			return -1;
		value = value * 10 + (uint64_t)(text[digits] - '0');
	}
	if (digits == 0 || text[digits] != '\0')
		return -1;
	*out = value;
	return 0;
}

int parse_device(const char *text, uint32_t *major, uint32_t *minor)
{
	const char *colon = strchr(text, ':');
	char left[16];
	uint64_t a, b;

	if (colon == NULL || (size_t)(colon - text) >= sizeof left)
		return -1;
	memcpy(left, text, (size_t)(colon - text));
	left[colon - text] = '\0';
	if (parse_decimal(left, &a) < 0 || parse_decimal(colon + 1, &b) < 0 || a > UINT32_MAX || b > UINT32_MAX)
		return -1;
	*major = (uint32_t)a;
	*minor = (uint32_t)b;
	return 0;
}

static int octal(const char *digits)
{
	int value = 0;

	for (int i = 0; i < 3; i++) {
		if (digits[i] < '0' || digits[i] > '7')
			return -1;
		value = value * 8 + (digits[i] - '0');
	}
	return value > 0 && value < 256 ? value : -1;
}

char *word_unescape(char *word)
{
	char *to = word;

	if (strcmp(word, "\\") == 0) {
		*word = '\0';
		return word;
	}
	for (const char *from = word; *from != '\0'; to++) {
		if (*from == '\\') {
			int byte = octal(from + 1);

			if (byte < 0)
				return NULL;
			*to = (char)byte;
			from += 4;
		} else if (*from > 0x20 && *from < 0x7f) {
			*to = *from++;
		} else {
			return NULL;
		}
	}
	*to = '\0';
	return word;
}

char *word_escape(const char *text, char *out, size_t size)
{
	size_t used = 0;

	if (*text == '\0' && size >= 2) {
		memcpy(out, "\\", 2);
		return out;
	}
	for (; *text != '\0'; text++) {
		unsigned char byte = (unsigned char)*text;
		int plain = byte > 0x20 && byte < 0x7f && byte != '\\';

		if (used + (plain ? 1 : 4) >= size)
			break;
		if (plain) {
			out[used++] = (char)byte;
			continue;
		}
		out[used++] = '\\';
		out[used++] = (char)('0' + (byte >> 6));
		out[used++] = (char)('0' + ((byte >> 3) & 7));
		out[used++] = (char)('0' + (byte & 7));
	}
	out[used] = '\0';
	return out;
}

enum { WORDS_MAX = 7 };

static const struct {
	const char *name;
	enum verb verb;
	int words; /* with the verb itself */
	const char *usage;
} verbs[] = {
	{ "hello", VERB_HELLO, 1, "expected: hello" },
	{ "plan", VERB_PLAN, 6, "expected: plan SESSION OWNER LEASE_MAX_MS BUDGET_MS EXPEDITE" },
	{ "fs", VERB_FS, 5, "expected: fs GROUP MOUNT_ID MAJOR:MINOR PATH" },
	{ "sync", VERB_SYNC, 2, "expected: sync BUDGET_MS" },
	{ "freeze", VERB_FREEZE, -1, "expected: freeze LEASE_MS, or freeze LEASE_MS LIMIT_MS" },
	{ "renew", VERB_RENEW, 2, "expected: renew LEASE_MS" },
	{ "critical", VERB_CRITICAL_ON, -1, "expected: critical on BOUND_MS, or critical off" },
	{ "thaw", VERB_THAW, 1, "expected: thaw" },
	{ "status", VERB_STATUS, 1, "expected: status" },
	{ "hung", VERB_HUNG, 1, "expected: hung" },
};

static const char *parse_plan(char **word, struct request *out)
{
	uint64_t expedite;
	char *session = word_unescape(word[1]), *owner = word_unescape(word[2]);

	if (session == NULL || *session == '\0' || strlen(session) > ID_MAX_BYTES)
		return "expected: a session id of 1 to 128 bytes";
	if (owner == NULL || strlen(owner) > OWNER_MAX_BYTES)
		return "expected: an owner of at most 256 bytes";
	if (parse_decimal(word[3], &out->lease_ms) < 0 || parse_decimal(word[4], &out->budget_ms) < 0)
		return "expected: LEASE_MAX_MS and BUDGET_MS in decimal milliseconds";
	if (parse_decimal(word[5], &expedite) < 0 || expedite > 1)
		return "expected: EXPEDITE 0 or 1";
	out->session = session;
	out->owner = owner;
	out->expedite = (int)expedite;
	return NULL;
}

static const char *parse_fs(char **word, struct request *out)
{
	uint64_t group;
	char *path;

	if (parse_decimal(word[1], &group) < 0 || group > UINT32_MAX)
		return "expected: GROUP, a decimal number of 32 bits";
	if (parse_decimal(word[2], &out->mount_id) < 0)
		return "expected: MOUNT_ID, a decimal number";
	if (parse_device(word[3], &out->major, &out->minor) < 0)
		return "expected: MAJOR:MINOR, two decimal numbers";
	path = word_unescape(word[4]);
	if (path == NULL || path[0] != '/' || strlen(path) > PATH_MAX_BYTES)
		return "expected: an absolute PATH of at most 4095 bytes";
	out->group = (uint32_t)group;
	out->path = path;
	return NULL;
}

const char *request_parse(char *line, size_t length, struct request *out)
{
	char *word[WORDS_MAX];
	int words = 0;
	size_t which = 0;

	memset(out, 0, sizeof *out);
	line[length] = '\0';
	for (size_t i = 0; i < length; i++)
		if (line[i] < 0x20 || line[i] > 0x7e)
			return "a byte outside 0x20-0x7e";
	for (char *from = line;; words++) {
		char *space = strchr(from, ' ');

		if (words == WORDS_MAX)
			return "too many words";
		word[words] = from;
		if (*from == '\0' || space == from)
			return "an empty word (words are separated by one space)";
		if (space == NULL)
			break;
		*space = '\0';
		from = space + 1;
	}
	words++;

	while (which < sizeof verbs / sizeof *verbs && strcmp(verbs[which].name, word[0]) != 0)
		which++;
	if (which == sizeof verbs / sizeof *verbs)
		return "unknown verb (known: hello plan fs sync freeze renew critical thaw status hung)";
	if (verbs[which].words >= 0 && words != verbs[which].words)
		return verbs[which].usage;
	out->verb = verbs[which].verb;

	switch (out->verb) {
	case VERB_PLAN: return parse_plan(word, out);
	case VERB_FS: return parse_fs(word, out);
	case VERB_FREEZE:
		if (words < 2 || words > 3 || parse_decimal(word[1], &out->lease_ms) < 0)
			return verbs[which].usage;
		if (words == 3 && (parse_decimal(word[2], &out->limit_ms) < 0 || out->limit_ms == 0))
			return verbs[which].usage;
		return NULL;
	case VERB_SYNC: return parse_decimal(word[1], &out->budget_ms) < 0 ? verbs[which].usage : NULL;
	case VERB_RENEW: return parse_decimal(word[1], &out->lease_ms) < 0 ? verbs[which].usage : NULL;
	case VERB_CRITICAL_ON:
		if (words == 2 && strcmp(word[1], "off") == 0) {
			out->verb = VERB_CRITICAL_OFF;
			return NULL;
		}
		if (words != 3 || strcmp(word[1], "on") != 0 || parse_decimal(word[2], &out->bound_ms) < 0)
			return verbs[which].usage;
		return NULL;
	default: return NULL;
	}
}
