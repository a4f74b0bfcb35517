/** Mocha's own report, and its counts for test/run.mjs. */
import Mocha from 'mocha'

export default class Reporter extends Mocha.reporters.Spec {
  constructor(runner, options) {
    super(runner, options)
    const counts = { passed: 0, failed: 0, skipped: 0, finished: false }
    const count = (event, name) =>
      runner.on(event, () => {
        counts[name] += 1
        process.send?.(counts)
      })
    count('pass', 'passed')
    count('fail', 'failed')
    count('pending', 'skipped')
    runner.on('end', () => {
      counts.finished = true
      process.send?.(counts)
    })
  }
}
