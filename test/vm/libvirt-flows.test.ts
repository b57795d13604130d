// What people do with virsh, through a real libvirtd, with the stock qemu-ga in the guest and with ours: the same exit
// codes, words and fields, or a difference that is listed with its reason. The list in qga/README.md is theirs.
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Reverter } from '../../src/reverter.js';
import { withFlows, flows } from '../support/libvirt-table.js';
import { LIBVIRT_NEEDS, LibvirtHost } from '../support/libvirt.js';
import type { LibvirtDomain } from '../support/libvirt-domain.js';
import { domainState, startDomain, type AgentKind } from '../support/libvirt-state.js';
import { requires } from '../support/requires.js';

const BUILD_LIMIT_MS = 500_000;

test('the list in qga/README.md is this one', () => {
  const readme = readFileSync(new URL('../../qga/README.md', import.meta.url), 'utf8');
  expect(readme).toBe(withFlows(readme));
});

test('a difference that is listed is one', () => {
  for (const { seen } of flows) if (typeof seen !== 'string') expect(seen.stock).not.toBe(seen.ours);
});

requires(...LIBVIRT_NEEDS)('flows of virsh', () => {
  const fieldsOfStock = new Map<string, unknown>();

  describe.each(['stock', 'ours'] as const)('%s', (agent: AgentKind) => {
    const atEnd = new Reverter();
    let domain: LibvirtDomain;
    beforeAll(async () => {
      await domainState(agent);
      const libvirt = await LibvirtHost.start();
      atEnd.push('libvirtd', async () => {
        await libvirt[Symbol.asyncDispose]();
      });
      domain = await startDomain(libvirt, agent);
      atEnd.push('domain', async () => {
        await domain[Symbol.asyncDispose]();
      });
    }, BUILD_LIMIT_MS);
    afterAll(async () => {
      await atEnd.revert();
    });

    for (const { name, seen, run } of flows) {
      test(name, async () => {
        const { text, fields } = await run(domain, agent);
        expect(text).toBe(typeof seen === 'string' ? seen : seen[agent]);
        if (agent === 'stock') fieldsOfStock.set(name, fields);
        else expect(fields).toEqual(fieldsOfStock.get(name));
      });
    }
  });
});
