import { expect, test } from 'vitest';
import { networkHandlers } from '../../../../src/agent/handlers/network.js';
import { context, madeUpGuest, type MadeUpGuest, type Tools } from '../../../support/guest-sources.js';

const ip = 'ip -j -s address show';
const make = (tools: Tools = {}): MadeUpGuest => madeUpGuest(tools);
const interfaces = async (made: MadeUpGuest) =>
  await networkHandlers(made.sources)['guest-network-get-interfaces']({}, context);
const routes = async (made: MadeUpGuest) => await networkHandlers(made.sources)['guest-network-get-route']({}, context);

const counted = { bytes: 9007199254740991, packets: 2, errors: 3, dropped: 4, missed: 5, multicast: 6 };
const links = [
  {
    ifname: 'lo',
    link_type: 'loopback',
    address: '00:00:00:00:00:00',
    addr_info: [
      { family: 'inet', local: '127.0.0.1', prefixlen: 8, scope: 'host', label: 'lo' },
      { family: 'inet6', local: '::1', prefixlen: 128, scope: 'host' },
    ],
    stats64: { rx: { ...counted, bytes: 1 }, tx: { bytes: 1, packets: 1, errors: 0, dropped: 0 } },
  },
  {
    ifname: 'eth0',
    address: '52:54:00:12:34:56',
    addr_info: [
      { family: 'inet', local: '10.0.0.2', prefixlen: 24, label: 'eth0' },
      { family: 'inet', local: '10.0.0.3', prefixlen: 32, label: 'eth0:web' },
      { family: 'inet6', local: 'fe80::1', prefixlen: 64 },
    ],
    stats64: { rx: counted, tx: { bytes: 7, packets: 8, errors: 9, dropped: 10 } },
  },
  {},
  { ifname: 'tun0', link_type: 'none', addr_info: [], stats64: { rx: counted, tx: counted } },
  { ifname: 'ib0', address: '80:00:02:08:fe', addr_info: [] },
];

test('names interfaces with addresses and counters, as getifaddrs has them', async () => {
  const made = make({ [ip]: { stdout: JSON.stringify(links) } });
  made.write('sys/class/net/lo/address', '00:00:00:00:00:00\n');
  made.write('sys/class/net/eth0/address', '52:54:00:12:34:56\n');
  made.write('sys/class/net/ib0/address', '80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:01:02:03\n');
  const [lo, eth0, label, tun0, ib0, ...more] = await interfaces(made);
  expect(more).toEqual([]);
  expect(lo).toMatchObject({ name: 'lo', 'hardware-address': '00:00:00:00:00:00' });
  expect(eth0).toEqual({
    name: 'eth0',
    'hardware-address': '52:54:00:12:34:56',
    'ip-addresses': [
      { 'ip-address': '10.0.0.2', 'ip-address-type': 'ipv4', prefix: 24 },
      { 'ip-address': 'fe80::1', 'ip-address-type': 'ipv6', prefix: 64 },
    ],
    statistics: {
      'rx-bytes': 9007199254740991,
      'rx-packets': 2,
      'rx-errs': 3,
      'rx-dropped': 9,
      'tx-bytes': 7,
      'tx-packets': 8,
      'tx-errs': 9,
      'tx-dropped': 10,
    },
  });
  expect(label).toEqual({
    name: 'eth0:web',
    'hardware-address': '52:54:00:12:34:56',
    'ip-addresses': [{ 'ip-address': '10.0.0.3', 'ip-address-type': 'ipv4', prefix: 32 }],
  });
  expect(tun0).toEqual({ name: 'tun0', 'hardware-address': '00:00:00:00:00:00' });
  expect(ib0).toEqual({ name: 'ib0', 'hardware-address': '80:00:02:08:fe:80' });
});

test('says which tool is missing, or what it did not understand', async () => {
  await expect(interfaces(make())).rejects.toThrow(
    `the helper program 'ip' (package iproute2, iproute on RHEL) was not found`,
  );
  await expect(interfaces(make({ [ip]: { exitCode: 1, output: 'no\n' } }))).rejects.toThrow(`show' failed: no`);
  await expect(interfaces(make({ [ip]: { stdout: 'Usage: ip' } }))).rejects.toThrow('not understood');
  await expect(interfaces(make({ [ip]: { stdout: '[{"ifname": 1}]' } }))).rejects.toThrow('not understood');
  expect(await interfaces(make({ [ip]: { stdout: '' } }))).toEqual([]);
});

test('reads routes of both versions', async () => {
  const made = make();
  made.write(
    'proc/net/route',
    'Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n' +
      'eth0\t00000000\t0102000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n' +
      'eth0\t0002000A\t00000000\t0001\t1\t2\t0\t00FFFFFF\t1500\t3\t4\n' +
      'broken\n',
  );
  made.write(
    'proc/net/ipv6_route',
    'fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000002 00000001     eth0\n' +
      '00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe8000000000000000000000000000a1 ffffffff 00000001 00000000 00200200       lo\n' +
      '20010db8000000010000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000003 00000000 80200001       lo\n',
  );
  const found = await routes(made);
  expect(found).toHaveLength(5);
  expect(found[0]).toEqual({
    iface: 'eth0',
    destination: '0.0.0.0',
    metric: 100,
    gateway: '10.0.2.1',
    mask: '0.0.0.0',
    irtt: 0,
    flags: 3,
    refcnt: 0,
    use: 0,
    window: 0,
    mtu: 0,
    version: 4,
  });
  expect(found[1]).toMatchObject({ destination: '10.0.2.0', mask: '255.255.255.0', mtu: 1500, window: 3, irtt: 4 });
  expect(found[2]).toEqual({
    iface: 'eth0',
    destination: 'fd00::',
    metric: 256,
    flags: 1,
    refcnt: 1,
    use: 2,
    desprefixlen: '64',
    source: '::',
    srcprefixlen: '0',
    nexthop: '::',
    version: 6,
  });
  expect(found[3]).toMatchObject({ destination: '::', nexthop: 'fe80::a1', metric: -1 });
  expect(found[4]).toMatchObject({ destination: '2001:db8:0:1::1', desprefixlen: '128', flags: -2145386495 });
});

test('has no routes of a version the kernel does not speak', async () => {
  const made = make();
  made.write('proc/net/route', 'Iface ...\n');
  expect(await routes(made)).toEqual([]);
  await expect(routes(make())).rejects.toThrow(/^open\(".*\/net\/route"\): No such file or directory$/);
});
