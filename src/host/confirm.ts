// Asks a person before something is lost. A program answers beforehand (`--yes`).
export type Confirm = (question: string) => Promise<boolean>;
