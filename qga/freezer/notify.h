/* sd_notify(3), as far as it is needed: one line to the service manager. */
#ifndef FREEZER_NOTIFY_H
#define FREEZER_NOTIFY_H

/*
 * Sends LINE. 0, also where no service manager asked for it (NOTIFY_SOCKET); else -1 with errno. Waits for a service
 * manager that does not read.
 */
int notify_manager(const char *line);

#endif
