// The guest's network interfaces and routes.
import * as v from 'valibot';
import { command, int, noArgs } from './command.js';

const text = v.optional(v.string());
const count = v.optional(int);

export const interfaceCommands = {
  'guest-network-get-interfaces': command({
    since: '1.1',
    args: noArgs,
    returns: v.array(
      v.object({
        name: v.string(),
        'hardware-address': text,
        'ip-addresses': v.optional(
          v.array(v.object({ 'ip-address': v.string(), 'ip-address-type': v.picklist(['ipv4', 'ipv6']), prefix: int })),
        ),
        statistics: v.optional(
          v.object({
            'rx-bytes': int,
            'rx-packets': int,
            'rx-errs': int,
            'rx-dropped': int,
            'tx-bytes': int,
            'tx-packets': int,
            'tx-errs': int,
            'tx-dropped': int,
          }),
        ),
      }),
    ),
  }),
} as const;

export const routeCommands = {
  /** `version` is 4 or 6, and says which of the other members there are. */
  'guest-network-get-route': command({
    since: '9.1',
    args: noArgs,
    returns: v.array(
      v.object({
        iface: v.string(),
        destination: v.string(),
        metric: int,
        gateway: text,
        mask: text,
        irtt: count,
        flags: count,
        refcnt: count,
        use: count,
        window: count,
        mtu: count,
        desprefixlen: text,
        source: text,
        srcprefixlen: text,
        nexthop: text,
        version: int,
      }),
    ),
  }),
} as const;
