// A reporter of vitest for run.mjs: a line of JSON in the file that FSB_TALLY names, at once, for each test file that is
// to run, begins and ends. What a runner did is known, then, though it was killed or hangs.
import { appendFileSync } from 'node:fs';
import { relative } from 'node:path';

const say = (line) => appendFileSync(process.env.FSB_TALLY, `${JSON.stringify(line)}\n`);
const pathOf = ({ moduleId }) => relative(process.cwd(), moduleId);
const messages = (errors) => errors.map((error) => error.stack ?? error.message ?? String(error));

class Tally {
  onTestRunStart(modules) {
    say({ planned: modules.map(pathOf) });
  }

  onTestModuleStart(module) {
    say({ began: pathOf(module) });
  }

  onTestModuleEnd(module) {
    const counts = { passed: 0, failed: 0, skipped: 0 };
    const failures = [];
    for (const test of module.children.allTests()) {
      const { state, errors = [] } = test.result();
      // One that never ran, since a hook failed, is pending.
      counts[state === 'pending' ? 'skipped' : state]++;
      if (state === 'failed') failures.push([test.fullName, ...messages(errors)].join('\n'));
    }
    // It could not be loaded, or a hook failed.
    const around = [module, ...module.children.allSuites()].flatMap((each) => messages(each.errors()));
    say({ ended: pathOf(module), ms: module.diagnostic().duration, counts, failures, around });
  }

  onTestRunEnd(_modules, errors) {
    say({ unhandled: messages(errors) });
  }
}

// By this name vitest asks for it.
export { Tally as default };
