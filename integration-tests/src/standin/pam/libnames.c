/*
 * Says which names addresses of the loopback network have, without asking DNS: those of
 * IAM_STANDIN_NAMES, as in "127.0.0.8 balancer.internal 127.0.0.9 other.internal", and no
 * others.
 *
 * MariaDB looks up the name of each client but 127.0.0.1, and then whether that name has the
 * client's address. Where DNS cannot be reached it waits, takes the answer for no answer, and
 * does not count that client's errors: nothing would ever be blocked. With this, which
 * MariaDB loads through LD_PRELOAD, a stand-in is the same with a network and without.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef int look_up(const struct sockaddr *, socklen_t, char *, socklen_t, char *, socklen_t, int);
typedef int look_for(const char *, const char *, const struct addrinfo *, struct addrinfo **);

struct entry {
	char address[INET_ADDRSTRLEN];
	char name[256];
};

/* Reads one entry of a list; where the next begins, or NULL where there is none. */
static const char *next_entry(const char *list, struct entry *entry)
{
	int length = 0;
	if (!list || sscanf(list, " %15s %255s%n", entry->address, entry->name, &length) != 2)
		return NULL;
	return list + length;
}

/* The name of an address of the loopback network. The server asks for no service with it. */
static int loopback_name(struct in_addr in, char *host, socklen_t host_size)
{
	char address[INET_ADDRSTRLEN];
	struct entry entry;

	if (!inet_ntop(AF_INET, &in, address, sizeof address))
		return EAI_FAIL;
	for (const char *rest = getenv("IAM_STANDIN_NAMES"); (rest = next_entry(rest, &entry));)
		if (!strcmp(entry.address, address))
			return snprintf(host, host_size, "%s", entry.name) < (int) host_size ? 0 : EAI_OVERFLOW;
	return EAI_NONAME;
}

int getnameinfo(const struct sockaddr *address, socklen_t length, char *host, socklen_t host_size,
                char *service, socklen_t service_size, int flags)
{
	if (!(flags & NI_NUMERICHOST) && address->sa_family == AF_INET) {
		struct in_addr in = ((const struct sockaddr_in *) address)->sin_addr;
		if (ntohl(in.s_addr) >> 24 == IN_LOOPBACKNET)
			return loopback_name(in, host, host_size);
	}
	look_up *system_own = (look_up *) dlsym(RTLD_NEXT, "getnameinfo");
	if (!system_own)
		return EAI_FAIL;
	return system_own(address, length, host, host_size, service, service_size, flags);
}

/* A name may have several addresses: the system's answers for each, one after another. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
	look_for *system_own = (look_for *) dlsym(RTLD_NEXT, "getaddrinfo");
	struct addrinfo *all = NULL;
	struct addrinfo **end = &all;
	struct entry entry;

	if (!system_own)
		return EAI_FAIL;
	for (const char *rest = getenv("IAM_STANDIN_NAMES"); name && (rest = next_entry(rest, &entry));) {
		if (strcasecmp(entry.name, name) || system_own(entry.address, service, hints, end))
			continue;
		while (*end)
			end = &(*end)->ai_next;
	}
	if (!all)
		return system_own(name, service, hints, found);
	*found = all;
	return 0;
}
