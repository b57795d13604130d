/* The marker written and read, and refused when it is damaged. */
#include "check.h"
#include "marker.h"
#include "rcu.h"

#include <string.h>
#include <sys/stat.h>

static char path[256], temporary[256];

static int read_text(const char *text, struct marker *out)
{
	char problem[512] = "";
	FILE *file = fopen(path, "w");
	int result;

	CHECK(file != NULL);
	fputs(text, file);
	fclose(file);
	result = marker_read(path, out, problem, sizeof problem);
	CHECK(result == 1 || strstr(problem, "damaged") != NULL);
	marker_free(out);
	return result;
}

static void round_trip(void)
{
	enum { MANY = 1500 }; /* no limit of ours */
	static struct marker_entry entries[MANY];
	static struct marker out, in;
	char problem[512], odd[] = "/mnt/a b\\c\n\303\244", longest[PATH_MAX_BYTES + 1];

	memset(longest, '\1', sizeof longest - 1);
	longest[0] = '/';
	longest[sizeof longest - 1] = '\0';
	out = (struct marker){
		.pid = 77, .start_time = 123456, .session = "a session", .rcu = "0", .count = MANY, .entries = entries
	};
	for (size_t i = 0; i < out.count; i++)
		out.entries[i] =
			(struct marker_entry){ (enum marked)(i % 4), i, (uint32_t)i, 9, i == 5 ? longest : odd };
	CHECK(marker_write(path, temporary, &out) == 0);
	CHECK(marker_read(path, &in, problem, sizeof problem) == 1);
	CHECK(in.pid == 77 && in.start_time == 123456 && in.count == out.count && in.critical_until == 0);
	CHECK(strcmp(in.session, "a session") == 0 && strcmp(in.rcu, "0") == 0);
	for (size_t i = 0; i < out.count; i++) {
		CHECK(in.entries[i].state == out.entries[i].state && in.entries[i].mount_id == i);
		CHECK(in.entries[i].major == i && in.entries[i].minor == 9);
		CHECK(strcmp(in.entries[i].path, out.entries[i].path) == 0);
	}
	marker_free(&in);
	out.critical_until = 1234567890123;
	CHECK(marker_write(path, temporary, &out) == 0);
	CHECK(marker_read(path, &in, problem, sizeof problem) == 1);
	CHECK(in.critical_until == 1234567890123 && in.count == out.count);
	marker_free(&in);
	CHECK(remove(path) == 0);
	CHECK(marker_read(path, &in, problem, sizeof problem) == 0);
	CHECK(marker_write("/nowhere/x", "/nowhere/y", &out) == 2);
}

static void damaged(void)
{
	static const char *const bad[] = {
		"",
		"\n",
		"something\n",
		"fsfreeze-bridge 2 1 1 s -\n",
		"fsfreeze-bridge 1 0 1 s -\n",
		"fsfreeze-bridge 1 x 1 s -\n",
		"fsfreeze-bridge 1 1 1 s\n",
		"fsfreeze-bridge 1 1 1 s -\nfrozen 1 1:1\n",
		"fsfreeze-bridge 1 1 1 s -\nmelted 1 1:1 /a\n",
		"fsfreeze-bridge 1 1 1 s -\nfrozen 1 1 /a\n",
		"fsfreeze-bridge 1 1 1 s -\nfrozen 1 1:1 a\n",
		"fsfreeze-bridge 1 1 1 s -\nfrozen 1 1:1 /a\nfrozen 1 1:1 /a\\0\n",
		"fsfreeze-bridge 1 1 1 s 12345678901234567890\n",
		"fsfreeze-bridge 1 1 1 s - soon\n",
		"fsfreeze-bridge 1 1 1 s - 1 1\n",
	};
	static struct marker in;

	CHECK(read_text("fsfreeze-bridge 1 1 1 s -\n", &in) == 1 && in.rcu[0] == '\0');
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		CHECK(read_text(bad[i], &in) == -1);
	remove(path);
}

static void put(const char *name, const char *text)
{
	char file_path[300];
	FILE *file;

	snprintf(file_path, sizeof file_path, "%s/%s", scratch, name);
	file = fopen(file_path, "w");
	CHECK(file != NULL);
	fputs(text, file);
	fclose(file);
}

static void rcu(void)
{
	char knob[256], cpu[256];

	snprintf(knob, sizeof knob, "%s/rcu_expedited", scratch);
	snprintf(cpu, sizeof cpu, "%s", scratch);
	put("rcu_normal", "0\n");
	put("isolated", "\n");
	CHECK(rcu_left_alone(knob, cpu) == NULL);
	put("nohz_full", "  (null)\n");
	CHECK(rcu_left_alone(knob, cpu) == NULL);
	put("nohz_full", "2-3\n");
	CHECK(rcu_left_alone(knob, cpu) != NULL);
	put("nohz_full", "\n");
	put("isolated", "1\n");
	CHECK(rcu_left_alone(knob, cpu) != NULL);
	put("isolated", "\n");
	put("rcu_normal", "1\n");
	CHECK(rcu_left_alone(knob, cpu) != NULL);
	put("rcu_normal", "0\n");
	CHECK(rcu_left_alone(knob, cpu) == NULL);
}

void test_markers(void)
{
	snprintf(path, sizeof path, "%s/marker", scratch);
	snprintf(temporary, sizeof temporary, "%s/marker.new", scratch);
	round_trip();
	damaged();
	rcu();
	passed("markers, where RCU is left alone");
}
