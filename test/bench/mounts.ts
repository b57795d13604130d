// bench -- mounts: what plan and second look cost where there are tens of thousands of mounts: bind mounts of one
// filesystem (hosting with jails, Kubernetes), and a copy of them in each of some namespaces. Native, in namespaces of
// its own; nothing is frozen. There is no peer: qemu-ga reads its own mount table alone, and once.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import type { MountsFigures } from './mounts-inside.js';
import { measure, type Row } from './table.js';

const PLAN_CPU_MS = 1500;
const LOOP_MS = 50;
const SECOND_LOOK_MS = 30;
const GROWTH = 5;

export async function mounts(): Promise<readonly Row[]> {
  const few = await figuresOf(2_000, 40);
  const tenth = await figuresOf(10_000, 10);
  const many = await figuresOf(40_000, 10);
  const growth = (of: (figures: MountsFigures) => number): number => of(many) / of(tenth);
  return [
    ...[few, tenth, many].flatMap(rowsOf),
    measure('plan, 40,000 mounts to 10,000', [growth(({ plan }) => plan.cpu)], GROWTH),
    measure('plan that asks all, 40,000 mounts to 10,000', [growth(({ planOfAll }) => planOfAll.cpu)], GROWTH),
  ];
}

function rowsOf(figures: MountsFigures): Row[] {
  const { plan, planOfAll, last, heapMiB } = figures;
  const name = `${figures.mounts} mounts, ${figures.namespaces} namespaces`;
  return [
    measure(`${name}: plan, ms of processor time`, [plan.cpu], PLAN_CPU_MS),
    measure(`${name}: the same, loop held at most, ms of it`, [plan.loop], LOOP_MS),
    measure(`${name}: plan that asks all namespaces`, [planOfAll.cpu], PLAN_CPU_MS),
    measure(`${name}: the same, loop held at most, ms of it`, [planOfAll.loop], LOOP_MS),
    measure(`${name}: the same, on the clock`, [planOfAll.wall], null),
    measure(`${name}: second look while held, ms`, figures.unchanged, SECOND_LOOK_MS),
    measure(`${name}: the same, one tmpfs more`, figures.oneTmpfsMore, SECOND_LOOK_MS),
    measure(`${name}: the same, one bind mount more`, figures.oneBindMore, SECOND_LOOK_MS),
    measure(`${name}: last look after the release, ms of processor time`, [last], null),
    measure(`${name}: heap, MiB`, [heapMiB], null),
  ];
}

async function figuresOf(mounts: number, namespaces: number): Promise<MountsFigures> {
  const dir = mkdtempSync(join(tmpdir(), 'fsb-bench-mounts-'));
  try {
    const inside = fileURLToPath(new URL('mounts-inside.ts', import.meta.url));
    const own = ['--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child', '--mount-proc'];
    const program = [process.execPath, '--import', 'tsx', inside, dir, String(mounts), String(namespaces)];
    const { stdout } = await execa('unshare', [...own, ...program], { stderr: 'inherit' });
    return JSON.parse(stdout) as MountsFigures;
  } finally {
    // Its mounts went with their namespaces.
    rmSync(dir, { recursive: true });
  }
}
