/** The devices of one run, with all that is known of them before the run, and the changes that the run makes to them. */
import type { ProviderName } from '../../domain/device.ts';
import {
  apnsDeviceToken,
  type BehaviourShares,
  type DeviceBehaviour,
  fcmRegistrationToken,
  mixedAudience,
} from '../../simulator/device-tokens.ts';

export interface ChaosDevice {
  externalId: string;
  provider: ProviderName;
  /** Every token that the device has had, the newest last. */
  tokens: { text: string; behaviour: DeviceBehaviour }[];
  isDeleted: boolean;
  /** Registered in mid-send with a new token: a provider's word on an older registration is void. */
  isRegisteredAgain: boolean;
  /** Another device registered this device's token in mid-send. */
  isMoved: boolean;
}

/** Numbers of new tokens begin here, so that no token is given twice. */
const newTokenOffset = 1_000_000_000;

export class ChaosDevices {
  readonly name: string;
  /** By external id. */
  readonly audience = new Map<string, ChaosDevice>();
  /** Devices that got a token of the audience in mid-send: they are not in the audience, and no send may touch them. */
  readonly newOwners: ChaosDevice[] = [];
  readonly #base: number;
  #newTokens = 0;

  /** @param run tells apart runs of one seed on one stack */
  constructor(seed: number, run: number, count: number, shares: BehaviourShares) {
    this.name = `chaos-${run}-${seed}`;
    this.#base = run * 10_000_000;
    for (let n = 0; n < count; n++) {
      const device = createDevice(`${this.name}-${n}`, n % 2 === 0 ? 'apns' : 'fcm');
      giveToken(device, this.#base + n, mixedAudience(n, seed, shares));
      this.audience.set(device.externalId, device);
    }
  }

  /** Rows for the import, with the property that selects the audience. */
  *rows(): Generator<object> {
    for (const device of this.audience.values()) yield this.#row(device);
  }

  /** Gives every `step`-th device from `first` on a new, living token. @returns its rows */
  renew(first: number, step: number): object[] {
    return this.#pick(first, step).map((device) => {
      device.isRegisteredAgain = true;
      giveToken(device, newTokenOffset + this.#base + this.#newTokens++, 'accept');
      return this.#row(device);
    });
  }

  /** Changes properties so that the devices would no longer belong to the audience. @returns their rows */
  change(first: number, step: number): object[] {
    return this.#pick(first, step).map((device) => this.#row(device, 'elsewhere'));
  }

  /** Lets new devices register the tokens, as after a restore to another phone. @returns their rows */
  move(first: number, step: number): object[] {
    return this.#pick(first, step).map((device) => {
      device.isMoved = true;
      const owner = createDevice(`${device.externalId}-heir`, device.provider);
      owner.tokens.push(device.tokens.at(-1)!);
      this.newOwners.push(owner);
      return this.#row(owner, 'elsewhere');
    });
  }

  /** @returns external ids */
  forget(first: number, step: number): string[] {
    return this.#pick(first, step).map((device) => {
      device.isDeleted = true;
      return device.externalId;
    });
  }

  #pick(first: number, step: number): ChaosDevice[] {
    return [...this.audience.values()].filter(
      (device, n) => n % step === first % step && !device.isDeleted && !device.isMoved,
    );
  }

  #row({ externalId, provider, tokens }: ChaosDevice, chaos = this.name): object {
    const platform = provider === 'apns' ? 'ios' : 'android';
    return { external_id: externalId, platform, device_token: tokens.at(-1)!.text, properties: { chaos } };
  }
}

function createDevice(externalId: string, provider: ProviderName): ChaosDevice {
  return { externalId, provider, tokens: [], isDeleted: false, isRegisteredAgain: false, isMoved: false };
}

function giveToken(device: ChaosDevice, number: number, behaviour: DeviceBehaviour): void {
  const text =
    device.provider === 'apns' ? apnsDeviceToken(number, behaviour) : fcmRegistrationToken(number, behaviour);
  device.tokens.push({ text, behaviour });
}
