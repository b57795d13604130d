// The load: a program that runs in a guest, beside the applications. Usage: load LOG READY SOURCES
//
// Clients do one operation after the other. Before it is sent, `> SOURCE CLIENT NUMBER` is appended to LOG, and
// `< SOURCE CLIENT NUMBER` when it was acknowledged. Others append their marks to the same file: what stands before what is
// all that counts, no clock is asked. LOG lies in memory: it is on no disk that is cut, and nothing that is frozen keeps it
// from being written.
//
// `! ready` says that READY operations of each source were acknowledged. At SIGTERM every client does some more, so that
// there is something that a cut must not hold, and the program ends.
import { openSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from './drivers.js';
import { CLIENTS, type Source } from './source.js';

const [, , file = '', ready = '', sources = ''] = process.argv;
const GOAL = Number(ready);
const MORE = 20;
/** So that sources of very different speed, their writers and all else have their turn on the one processor. */
const PAUSE_MS = 20;

const log = openSync(file, 'a');
const say = (line: string): void => {
  writeSync(log, `${line}\n`);
};

let isStopped = false;
process.on('SIGTERM', () => {
  isStopped = true;
});

async function operate(source: Source, client: number, acknowledged: () => void): Promise<void> {
  const act = await connect[source.driver](source, client);
  let more = MORE;
  for (let number = 0; more > 0; number++) {
    if (isStopped) more--;
    const name = `${source.name} ${client} ${number}`;
    say(`> ${name}`);
    await act(number);
    say(`< ${name}`);
    acknowledged();
    await sleep(PAUSE_MS);
  }
}

const all = JSON.parse(sources) as readonly Source[];
let waitedFor = all.length;
const clients = all.flatMap((source) => {
  let count = 0;
  const acknowledged = (): void => {
    if (++count === GOAL && --waitedFor === 0) say('! ready');
  };
  return Array.from({ length: CLIENTS }, async (_, client) => {
    await operate(source, client, acknowledged);
  });
});
// One file in CommonJS, for Node alone: no await up here.
Promise.all(clients).then(
  () => process.exit(0),
  (error: unknown) => {
    say(`! failed ${String(error)}`);
    console.error(error);
    process.exit(1);
  },
);
