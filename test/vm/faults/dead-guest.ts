// QEMU was killed: no guest is left to ask. What the host has then must be whole: the tool ended and told nothing it does
// not know, every image is sound, and `recover` says what is there.
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { execa } from 'execa';
import * as v from 'valibot';
import { satisfies } from '../../../src/consistency.js';
import { bridge } from '../../support/agent-guest.js';
import type { Lab } from './lab.js';
import type { Told } from './matrix.js';
import type { Requester } from './requesters.js';

export async function judgeDeadGuest(
  lab: Lab,
  requester: Requester,
  told: Told,
): Promise<{ complaints: string[]; told: string; backMs: undefined; releaseMs: undefined; timeline: string }> {
  const complaints: string[] = [];
  requester.goOn();
  const { level, error, exitCode } = await requester.done;
  if (exitCode === undefined || exitCode === 0) complaints.push(`the tool ended with exit code ${exitCode ?? 'none'}`);
  if (level !== undefined && (told === 'nothing' || !satisfies('crash', level)))
    complaints.push(`told ${level} of a VM that died, expected ${told}`);
  for (const file of await images(lab)) {
    const {
      exitCode: code,
      stdout,
      stderr,
    } = await execa('qemu-img', ['check', path.join(lab.guest.dir, file)], {
      reject: false,
      timeout: 60_000,
    });
    // 3: leaked clusters, which cost space and no data; a VM that was killed may leave them.
    if (code !== 0 && code !== 3)
      complaints.push(`qemu-img check ${file}: exit ${code ?? 'none'}: ${stdout} ${stderr}`);
  }
  complaints.push(...(await recovered(lab, requester)));
  return {
    complaints,
    told: level ?? `nothing: ${error ?? 'no word'}`,
    backMs: undefined,
    releaseMs: undefined,
    timeline: '',
  };
}

const Findings = v.looseObject({
  findings: v.array(
    v.looseObject({ status: v.string(), found: v.string(), did: v.string(), commands: v.array(v.string()) }),
  ),
});

/** It cannot ask the VM: it says so (exit 3 or 8), with what to type for each thing it leaves. Nothing is removed blindly. */
async function recovered(lab: Lab, { tool }: Requester): Promise<string[]> {
  if (tool === undefined) return [];
  const before = await images(lab);
  // By QEMU's own sockets: the proxies in front of them still listen.
  const { exitCode, json, stderr } = await bridge(lab.machine, ['recover', '--monitor-timeout', '2']);
  if (exitCode === undefined || ![0, 3, 8].includes(exitCode))
    return [`recover of a dead VM: exit ${exitCode ?? 'none'}: ${stderr}`];
  const complaints: string[] = [];
  for (const { status, found, did, commands } of v.parse(Findings, json).findings)
    if (status === 'failed' || (status !== 'done' && commands.length === 0))
      complaints.push(`recover of a dead VM: ${status}: ${found}: ${did}`);
  const after = await images(lab);
  for (const name of lab.guest.disks.map(({ file }) => path.basename(file)))
    if (before.includes(name) && !after.includes(name)) complaints.push(`recover removed ${name}, a disk of the VM`);
  return complaints;
}

async function images(lab: Lab): Promise<string[]> {
  return (await readdir(lab.guest.dir)).filter((name) => name.endsWith('.qcow2'));
}
