// A snapshot set while it is being made: its name, its journal, and what must be undone if it fails. The one place of
// `snapshot create` that remembers how far it has come; the steps hand values to each other.
import { ThawUnconfirmedError } from '../../errors.js';
import { Reverter } from '../../reverter.js';
import { Journal, type JournalHold } from '../sets/journal.js';
import type { Manifest } from '../sets/manifest.js';
import type { ManifestStore } from '../sets/manifest-store.js';
import { undoCreate } from './create-undo.js';

export class SetInMaking {
  /** Steps register here what they do, before they do it. */
  readonly reverter = new Reverter();
  readonly #store: ManifestStore;
  readonly #signal: AbortSignal;
  #draft: Manifest | undefined;
  #journal: Journal | undefined;
  #isCut = false;
  #keepHold = false;

  constructor(store: ManifestStore, signal: AbortSignal) {
    this.#store = store;
    this.#signal = signal;
  }

  /** Takes the set's name, and writes its first manifest. Throws what ManifestStore.claim and its write do. */
  async begin(draft: Manifest): Promise<void> {
    this.#journal = await Journal.claim(this.#store, draft.set);
    this.#draft = draft;
    await this.#store.write(draft);
  }

  /** More is known of the set; an undo that cannot forget it records this much. */
  learn(draft: Manifest): void {
    this.#draft = draft;
  }

  /** Durable when it returns: the guest is about to be held. */
  async willHold(hold: JournalHold): Promise<void> {
    await this.#journal?.holds(hold);
  }

  /** The disks are cut. From here on the set exists, whatever fails: nothing of it is undone. */
  keep(): void {
    this.reverter.keep();
    this.#isCut = true;
  }

  /**
   * Undoes what may be undone, and gives the error to throw. Call it while the agent is open: the undo may have to
   * thaw.
   */
  async undo(error: unknown): Promise<unknown> {
    // Nothing of a cut that was taken may be undone, nor may it be called none.
    const told = this.#isCut ? error : await undoCreate(this.reverter, this.#store, this.#draft, this.#signal, error);
    this.#keepHold = told instanceof ThawUnconfirmedError;
    return told;
  }

  /** Ends the journal, whatever happened. Never throws. */
  async end(): Promise<void> {
    await this.#journal?.end({ keepHold: this.#keepHold });
  }
}
