import { expect } from 'chai'
import { FrameScanner } from '../../bench/frame-scanner.ts'
import { frame } from '../../protocol/frame.ts'

describe('the frame scanner', () => {
  it('finds frames and their bodies wherever the stream is cut', () => {
    const stream = Buffer.concat([
      frame(11, Buffer.from('hello')),
      frame(14, Buffer.alloc(0), 2),
      frame(100, Buffer.alloc(300, 7)),
    ])
    for (let step = 1; step <= stream.length; step++) {
      const seen: [number, number, number][] = []
      let bodyBytes = 0
      const scanner = new FrameScanner({
        onFrame: (command, status, lengthBytes) => void seen.push([command, status, lengthBytes]),
        onBody: (_, start, end) => {
          bodyBytes += end - start
        },
      })
      for (let at = 0; at < stream.length; at += step) {
        const chunk = stream.subarray(at, at + step)
        scanner.feed(chunk, chunk.length)
      }
      expect(seen).deep.equal([
        [11, 0, 5],
        [14, 2, 0],
        [100, 0, 300],
      ])
      expect(bodyBytes).equal(305)
    }
  })
})
