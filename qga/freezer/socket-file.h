/* The file of the freezer's unix socket: made, and found. Who answers on it is peer.h; who is served, server.h. */
#ifndef FREEZER_SOCKET_FILE_H
#define FREEZER_SOCKET_FILE_H

#include <sys/un.h>

/* The address of PATH. 0, or -1 with errno ENAMETOOLONG. */
int socket_address(const char *path, struct sockaddr_un *out);

/* Makes the socket (0600, in place of whatever lies at PATH) and listens. The file descriptor, or -1 with errno. */
int socket_listen(const char *path);

#endif
