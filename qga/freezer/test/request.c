/* Lines taken apart, escapes, deadlines. */
#include "check.h"
#include "request.h"
#include "system.h"

#include <string.h>

static char line[LINE_MAX_BYTES + 1];

static const char *parse(const char *text, struct request *out)
{
	strcpy(line, text);
	return request_parse(line, strlen(text), out);
}

static void accepted(void)
{
	struct request r;

	CHECK(parse("hello", &r) == NULL && r.verb == VERB_HELLO);
	CHECK(parse("status", &r) == NULL && r.verb == VERB_STATUS);
	CHECK(parse("thaw", &r) == NULL && r.verb == VERB_THAW);
	CHECK(parse("plan id the\\040owner 60000 15000 1", &r) == NULL);
	CHECK(r.verb == VERB_PLAN && r.lease_ms == 60000 && r.budget_ms == 15000 && r.expedite == 1);
	CHECK(strcmp(r.session, "id") == 0 && strcmp(r.owner, "the owner") == 0);
	CHECK(parse("plan id \\ 1 1 0", &r) == NULL && r.owner[0] == '\0');
	CHECK(parse("fs 3 42 254:17 /a\\040b\\134\\303\\244", &r) == NULL);
	CHECK(r.group == 3 && r.mount_id == 42 && r.major == 254 && r.minor == 17);
	CHECK(strcmp(r.path, "/a b\\\303\244") == 0);
	CHECK(parse("fs 4294967295 999999999999999999 0:0 /", &r) == NULL);
	CHECK(parse("sync 0", &r) == NULL && r.budget_ms == 0);
	CHECK(parse("freeze 10000", &r) == NULL && r.verb == VERB_FREEZE && r.lease_ms == 10000 && r.limit_ms == 0);
	CHECK(parse("freeze 10000 8000", &r) == NULL && r.lease_ms == 10000 && r.limit_ms == 8000);
	CHECK(parse("renew 5", &r) == NULL && r.verb == VERB_RENEW && r.lease_ms == 5);
	CHECK(parse("critical on 30", &r) == NULL && r.verb == VERB_CRITICAL_ON && r.bound_ms == 30);
	CHECK(parse("critical off", &r) == NULL && r.verb == VERB_CRITICAL_OFF);
}

static void refused(void)
{
	static const char *const bad[] = {
		"",
		" ",
		"hello ",
		" hello",
		"hello  x",
		"Hello",
		"hello\t",
		"hello\r",
		"hel\x80",
		"thaw now",
		"freeze",
		"freeze -1",
		"freeze +1",
		"freeze 0x10",
		"freeze 1e3",
		"freeze 1000000000000000000",
		"freeze 1 0",
		"freeze 1 2 3",
		"freeze 1 x",
		"plan",
		"plan s o 1 1",
		"plan s o 1 1 2",
		"plan s o 1 1 1 1",
		"plan \\ o 1 1 0",
		"plan s\\000 o 1 1 0",
		"plan s\\4 o 1 1 0",
		"plan s\\777 o 1 1 0",
		"fs 0 1 1:1 relative",
		"fs 0 1 1 /a",
		"fs 0 1 1: /a",
		"fs 0 1 :1 /a",
		"fs 0 1 1:1 /a\\",
		"fs 0 1 1:1 /a\\9",
		"fs 4294967296 1 1:1 /a",
		"fs 0 1 4294967296:1 /a",
		"fs 0 1 1:1 \\",
		"critical",
		"critical on",
		"critical off 1",
		"critical maybe 1",
		"critical on x",
		"a b c d e f g h",
	};
	struct request r;
	char longest[OWNER_MAX_BYTES + 64];

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		if (parse(bad[i], &r) == NULL) {
			fprintf(stderr, "accepted: '%s'\n", bad[i]);
			abort();
		}
	memset(longest, 'x', sizeof longest);
	memcpy(longest, "plan s ", 7);
	strcpy(longest + 7 + OWNER_MAX_BYTES, " 1 1 0");
	CHECK(parse(longest, &r) == NULL);
	strcpy(longest + 8 + OWNER_MAX_BYTES, " 1 1 0");
	longest[7 + OWNER_MAX_BYTES] = 'x';
	CHECK(parse(longest, &r) != NULL);
}

static void escapes(void)
{
	char all[256], word[4 * 256], small[6];

	for (int i = 0; i < 255; i++)
		all[i] = (char)(i + 1);
	all[255] = '\0';
	word_escape(all, word, sizeof word);
	for (const char *at = word; *at; at++)
		CHECK(*at > 0x20 && *at < 0x7f);
	CHECK(word_unescape(word) != NULL && strcmp(word, all) == 0);
	CHECK(strcmp(word_escape("", word, sizeof word), "\\") == 0);
	CHECK(strcmp(word_unescape(word), "") == 0);
	CHECK(strcmp(word_escape("ab c", small, sizeof small), "ab") == 0); /* never half an escape */
	CHECK(strcmp(word_escape("abcdefgh", small, sizeof small), "abcde") == 0);
}

static void deadlines(void)
{
	CHECK(deadline_after(5, 1) == 1000005);
	CHECK(deadline_after(UINT64_MAX - 5, 1) == UINT64_MAX);
	CHECK(deadline_after(1, UINT64_MAX) == UINT64_MAX);
	CHECK(deadline_renewed(1000, 10, 0, 100) == 10001000);
	CHECK(deadline_renewed(99000000, 10, 0, 100) == 100000000);
	CHECK(deadline_renewed(0, 10, UINT64_MAX - 1, 100) == 10000000);
}

void test_requests(void)
{
	accepted();
	refused();
	escapes();
	deadlines();
	passed("requests, escapes, deadlines");
}
