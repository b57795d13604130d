// Agent and freezer SIGKILLed together while the service manager itself waits for the frozen root: it was asked to start
// a unit with PrivateTmp, for which it makes a folder on the disk. Nobody is left then who could start anything. What
// comes of it is measured; if the guest does not come back by itself, `freezer --thaw-marked` by hand must bring it back.
import { setTimeout as sleep } from 'node:timers/promises';
import { judgeFired, nextSnapshot } from './evidence.js';
import { judgeBack, type Instants } from './judge.js';
import { Lab } from './lab.js';
import { leftInGuest } from './leftovers.js';
import { startClient } from './requesters.js';
import { prepareStep, reachStep } from './steps.js';

/** How long it is watched: the guest's next timer of its own would be later, too. */
export const PRIVATE_TMP_WATCH_MS = 15_000;
/** It must not end before the two are killed. */
const LEASE_MS = 15_000;
const UNIT = '[Service]\\nType=oneshot\\nPrivateTmp=yes\\nExecStart=/bin/true\\n';

/** By what it is in: in state D it may be for a page of its own program, or for a lock of the kernel's. */
const LOOK = `n=0; d=0
until [ $d = 3 ] || [ $n = 60 ]; do
  n=$((n+1)); d=$((d+1)); sleep 0.05
  [ "$(cut -d' ' -f3 /proc/1/stat)" = D ] && grep -q mnt_want_write /proc/1/stack || d=0
done
[ $d != 3 ] || echo waits`;

export interface PrivateTmpResult {
  readonly complaints: readonly string[];
  /** The service manager waited for a frozen filesystem before the two were killed. */
  readonly managerWaited: boolean;
  /** From the fault to the first write of the slowest filesystem; undefined: it was not back within the watch. */
  readonly backMs: number | undefined;
}

export async function runPrivateTmp(): Promise<PrivateTmpResult> {
  await using lab = await Lab.restore('user-mode');
  const { guest } = lab;
  await guest.exec(`printf '${UNIT}' >/run/systemd/system/fsb-private.service; systemctl daemon-reload`);
  const { agent, freezer } = await lab.services();
  await prepareStep(lab, 'frozen');
  await using requester = await startClient(lab, { leaseMs: LEASE_MS });
  const held = await reachStep(lab, 'frozen', requester);
  await guest.start('systemctl start --no-block fsb-private.service');
  const managerWaited = (await guest.exec(LOOK)).stdout.includes('waits');
  const shotNs = await lab.strike(['signal', 'KILL', String(agent), String(freezer)]);
  requester.giveUp();
  await held.letGo();
  const instants: Instants = {
    shotNs,
    leaseMs: LEASE_MS,
    renews: false,
    atOnce: true,
    letGoNs: [],
    stalledUntilNs: undefined,
    agentDies: true,
    foreignFrozen: undefined,
  };
  const isBack = async (): Promise<boolean> => {
    const { gaps, markers } = await lab.timeline();
    return gaps.every(({ open }) => !open) && markers.at(-1)?.state === undefined;
  };
  const end = performance.now() + PRIVATE_TMP_WATCH_MS;
  let back = await isBack();
  while (!back && performance.now() < end) {
    await sleep(200);
    back = await isBack();
  }
  const timeline = await lab.timeline();
  const { backMs } = judgeBack(timeline, instants);
  if (!back) {
    await guest.exec('/usr/lib/fsfreeze-bridge/freezer --thaw-marked', { timeoutMs: 60_000 });
    for (let tries = 0; !(await isBack()); tries++) {
      if (tries === 50) throw new Error('freezer --thaw-marked did not bring the guest back');
      await sleep(200);
    }
  }
  await requester.done;
  await requester[Symbol.asyncDispose]();
  const fired = judgeFired(timeline, 'both SIGKILLed together', 'frozen', instants);
  const complaints = [...fired, ...(await nextSnapshot(lab)), ...(await leftInGuest(lab))];
  return { complaints, managerWaited, backMs: back ? backMs : undefined };
}
