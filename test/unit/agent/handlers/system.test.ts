import { release } from 'node:os';
import { expect, test } from 'vitest';
import { parseOsRelease, systemHandlers } from '../../../../src/agent/handlers/system.js';

const context = { origin: 'host', name: 'test' } as const;

test('reads os-release as a shell would', () => {
  const text = `# c\nID=debian\nPRETTY_NAME="Debian \\"12\\""\nNAME='A B'\nVERSION_ID="12"\nHOME_URL=x\nnonsense\n`;
  expect(parseOsRelease(text)).toEqual({ id: 'debian', 'pretty-name': 'Debian "12"', name: 'A B', 'version-id': '12' });
});

test.each([
  // The first is the distribution that was reported; the others are the rest of ga_osrelease_replace_special.
  ['VARIANT="a \\\'b\\\' \\`c\\`"', "a 'b' `c`"],
  ['VARIANT="\\$d \\\\e \\"f\\" \\g"', '$d \\e "f" \\g'],
  ['VARIANT="a" # b"', 'a'],
  ['VARIANT=server edition', 'server'],
  ['VARIANT=server;edition', 'server'],
  ["VARIANT='a \\'", 'a \\'],
  ['VARIANT=""', ''],
])('takes the quotes away as qemu-ga does: %s', (line, variant) => {
  expect(parseOsRelease(`${line}\n`)).toEqual({ variant });
});

test('tells the time in nanoseconds, beyond what a number holds', async () => {
  const time = await systemHandlers()['guest-get-time']({}, context);
  expect(typeof time).toBe('bigint');
  expect(Math.abs(Number(BigInt(time) / 1_000_000n) - Date.now())).toBeLessThan(1000);
});

test('knows the running kernel', async () => {
  expect(await systemHandlers()['guest-get-osinfo']({}, context)).toMatchObject({ 'kernel-release': release() });
});
