/* See socket-file.h. */
#define _GNU_SOURCE
#include "socket-file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int socket_address(const char *path, struct sockaddr_un *out)
{
	memset(out, 0, sizeof *out);
	out->sun_family = AF_UNIX;
	if (strlen(path) >= sizeof out->sun_path) {
		errno = ENAMETOOLONG;
		return -1;
	}
	strcpy(out->sun_path, path);
	return 0;
}

int socket_listen(const char *path)
{
	char beside[sizeof((struct sockaddr_un *)NULL)->sun_path];
	struct sockaddr_un address;
	int fd, error;
	mode_t before;

	/* Made beside it and moved there when it listens: nobody ever finds one that does not. */
	if (snprintf(beside, sizeof beside, "%s.new", path) >= (int)sizeof beside) {
		errno = ENAMETOOLONG;
		return -1;
	}
	if (socket_address(beside, &address) < 0 || (unlink(beside) < 0 && errno != ENOENT))
		return -1;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	before = umask(0177);
	error = bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ? errno : 0;
	umask(before);
	/* Far more than it serves: one that was killed inside a FIFREEZE still listens, and must not seem to be busy. */
	if (error == 0 && (listen(fd, SOMAXCONN) < 0 || rename(beside, path) < 0))
		error = errno;
	if (error != 0) {
		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}
