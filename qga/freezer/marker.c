/* See marker.h. */
#define _GNU_SOURCE
#include "marker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const names[] = { "intended", "frozen", "refused", "thawed" };

const char *marked_name(enum marked state)
{
	return names[state];
}

bool marker_entry_is_left(const struct marker_entry *entry)
{
	return entry->state == MARKED_INTENDED || entry->state == MARKED_FROZEN;
}

/* Lines are gathered here; a whole line always fits: an escaped path is shorter than the request it came in. */
struct sink {
	int fd, error;
	size_t used;
	char text[2 * LINE_MAX_BYTES];
};

static void flush(struct sink *sink)
{
	size_t done = 0;

	while (done < sink->used && sink->error == 0) {
		ssize_t wrote = write(sink->fd, sink->text + done, sink->used - done);

		if (wrote < 0 && errno != EINTR)
			sink->error = errno;
		else if (wrote > 0)
			done += (size_t)wrote;
	}
	sink->used = 0;
}

static void put(struct sink *sink, const char *text)
{
	size_t length = strlen(text);

	if (sink->used + length > sizeof sink->text)
		flush(sink);
	if (length > sizeof sink->text) {
		sink->error = EMSGSIZE;
		return;
	}
	memcpy(sink->text + sink->used, text, length);
	sink->used += length;
}

int marker_write(const char *path, const char *temporary, const struct marker *marker)
{
	/* Static: only the main thread writes, and its stack stays small. */
	static struct sink sink;
	static char text[4 * PATH_MAX_BYTES + 1];
	char word[4 * ID_MAX_BYTES + 1], line[sizeof word + 128], critical[24] = "";

	sink.used = 0;
	sink.error = 0;
	sink.fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (sink.fd < 0)
		return errno;
	if (marker->critical_until != 0)
		snprintf(critical, sizeof critical, " %llu", (unsigned long long)marker->critical_until);
	snprintf(line, sizeof line, "fsfreeze-bridge 1 %d %llu %s %s%s\n", (int)marker->pid,
		 (unsigned long long)marker->start_time, word_escape(marker->session, word, sizeof word),
		 marker->rcu[0] == '\0' ? "-" : marker->rcu, critical);
	put(&sink, line);
	for (size_t i = 0; i < marker->count; i++) {
		const struct marker_entry *entry = &marker->entries[i];

		snprintf(line, sizeof line, "%s %llu %u:%u ", names[entry->state], (unsigned long long)entry->mount_id,
			 entry->major, entry->minor);
		put(&sink, line);
		put(&sink, word_escape(entry->path, text, sizeof text));
		put(&sink, "\n");
	}
	flush(&sink);
	if (close(sink.fd) < 0 && sink.error == 0)
		sink.error = errno;
	if (sink.error == 0 && rename(temporary, path) < 0)
		sink.error = errno;
	return sink.error;
}

/* Splits at single spaces; the number of words, or MAX + 1. */
static int split(char *line, char **word, int max)
{
	int words = 0;
	char *save = NULL;

	for (char *at = strtok_r(line, " \n", &save); at != NULL; at = strtok_r(NULL, " \n", &save)) {
		if (words == max)
			return max + 1;
		word[words++] = at;
	}
	return words;
}

static const char *parse_head(char *line, struct marker *out)
{
	char *word[7], *session;
	uint64_t pid, start, critical = 0;
	int words = split(line, word, 7);

	if ((words != 6 && words != 7) || strcmp(word[0], "fsfreeze-bridge") != 0)
		return "the first line is not: fsfreeze-bridge 1 PID STARTTIME SESSION RCU [CRITICAL_UNTIL]";
	if (strcmp(word[1], "1") != 0)
		return "its version is not 1";
	session = word_unescape(word[4]);
	if (parse_decimal(word[2], &pid) < 0 || pid == 0 || pid > INT32_MAX || parse_decimal(word[3], &start) < 0 ||
	    session == NULL || strlen(session) > ID_MAX_BYTES || strlen(word[5]) > RCU_VALUE_MAX ||
	    (words == 7 && parse_decimal(word[6], &critical) < 0))
		return "the first line holds a bad value";
	out->pid = (pid_t)pid;
	out->start_time = start;
	out->critical_until = critical;
	strcpy(out->session, session);
	strcpy(out->rcu, strcmp(word[5], "-") == 0 ? "" : word[5]);
	return NULL;
}

/* Room for one entry more: for 8, and for twice as many whenever they are full. NULL: out of memory. */
static struct marker_entry *next_entry(struct marker *out)
{
	bool full = out->count == 0 || (out->count >= 8 && (out->count & (out->count - 1)) == 0);
	struct marker_entry *more = out->entries;

	if (full)
		more = realloc(out->entries, (out->count == 0 ? 8 : 2 * out->count) * sizeof *more);
	if (more == NULL)
		return NULL;
	out->entries = more;
	return &more[out->count];
}

static const char *parse_entry(char *line, struct marker *out)
{
	char *word[4], *path;
	struct marker_entry *entry = next_entry(out);
	size_t state = 0;

	if (entry == NULL)
		return "out of memory";
	if (split(line, word, 4) != 4)
		return "a line is not: STATE MOUNT_ID MAJOR:MINOR PATH";
	while (state < sizeof names / sizeof *names && strcmp(names[state], word[0]) != 0)
		state++;
	path = word_unescape(word[3]);
	if (state == sizeof names / sizeof *names || parse_decimal(word[1], &entry->mount_id) < 0 ||
	    parse_device(word[2], &entry->major, &entry->minor) < 0 || path == NULL || path[0] != '/')
		return "a line holds a bad value";
	entry->state = (enum marked)state;
	entry->path = strdup(path);
	if (entry->path == NULL)
		return "out of memory";
	out->count++;
	return NULL;
}

int marker_read(const char *path, struct marker *out, char *problem, size_t size)
{
	const char *wrong = NULL;
	char *line = NULL;
	size_t room = 0;
	int lines = 0, fd;
	FILE *file;

	memset(out, 0, sizeof *out);
	fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return 0;
	file = fd < 0 ? NULL : fdopen(fd, "r");
	if (file == NULL) {
		snprintf(problem, size, "marker %s cannot be opened: %s", path, strerror(errno));
		if (fd >= 0)
			close(fd);
		return -1;
	}
	while (wrong == NULL && getline(&line, &room, file) >= 0)
		wrong = lines++ == 0 ? parse_head(line, out) : parse_entry(line, out);
	free(line);
	fclose(file);
	if (lines == 0)
		wrong = "it is empty";
	if (wrong != NULL) {
		snprintf(problem, size, "marker %s is damaged at line %d: %s", path, lines, wrong);
		return -1;
	}
	return 1;
}

void marker_free(struct marker *marker)
{
	for (size_t i = 0; i < marker->count; i++)
		free(marker->entries[i].path);
	free(marker->entries);
	marker->entries = NULL;
	marker->count = 0;
}

int marker_set_aside(const char *path)
{
	static struct marker marker;
	char problem[PATH_MAX_BYTES + 256], aside[PATH_MAX_BYTES + 64];
	int found = marker_read(path, &marker, problem, sizeof problem);

	if (found == 0)
		return 0;
	if (found > 0)
		snprintf(aside, sizeof aside, "%s.left-%d-%llu", path, (int)marker.pid,
			 (unsigned long long)marker.start_time);
	else
		snprintf(aside, sizeof aside, "%s.damaged", path);
	marker_free(&marker);
	return rename(path, aside) < 0 ? errno : 0;
}

/* NAME is BASE.left-PID-STARTTIME, with or without a number, and not the `.new` that is being written beside one. */
static bool is_aside(const char *name, const char *base)
{
	size_t length = strlen(base);

	return strncmp(name, base, length) == 0 && strncmp(name + length, ".left-", 6) == 0 &&
	       name[length + 6] != '\0' && name[length + 6 + strspn(name + length + 6, "0123456789-")] == '\0';
}

void markers_set_aside(const char *path, void (*take)(const char *left, void *context), void *context)
{
	const char *slash = strrchr(path, '/');
	char left[PATH_MAX_BYTES + 1];
	int folder = slash == NULL ? 0 : (int)(slash - path);
	struct dirent *entry;
	DIR *dir;

	snprintf(left, sizeof left, "%.*s/", folder, path);
	dir = opendir(left);
	while (dir != NULL && (entry = readdir(dir)) != NULL)
		if (is_aside(entry->d_name, slash == NULL ? path : slash + 1) &&
		    snprintf(left, sizeof left, "%.*s/%s", folder, path, entry->d_name) < (int)sizeof left)
			take(left, context);
	if (dir != NULL)
		closedir(dir);
}
